#include "cli/label_args.h"

#include "cli/print.h"

namespace nibble::cli {

void LabelArgs::declare(Args& args, const std::string& file_help) {
  args.option("--file", file, "F.tsv", file_help + " (.tsv, .csv, .jsonl)");
  args.option("--text-column", columns.text, "NAME|N", "of --file; default text, sentence or the only one left");
  args.option("--pair-column", columns.pair, "NAME|N", "of --file: the second text; default sentence2");
  args.option("--label-column", columns.label, "NAME|N", "of --file; default label, labels or intent");
  args.flag("--truncate", truncate, "cut texts that are too long for the model");
}

LabelledTexts LabelArgs::read() const { return read_labelled_texts(*file, columns); }

ClassifyOptions LabelArgs::options(const Common& common) const {
  return {.long_text = truncate ? LongText::truncate : LongText::refuse, .progress = progress_bar(common)};
}

}  // namespace nibble::cli
