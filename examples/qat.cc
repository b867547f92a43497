// Trains a model on a text knowing that it will be quantized, and writes it.
//   qat MODEL TEXT_FILE OUT
#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "nibble/nibble.h"

using namespace nibble;

int main(int argc, char** argv) try {
  if (argc != 4) throw Error(ErrorCode::invalid_argument, "usage: qat MODEL TEXT_FILE OUT");
  const std::string path = argv[1], out = argv[3];
  std::ifstream file(argv[2]);
  const std::string text(std::istreambuf_iterator<char>(file), {});

  CausalLM model = AutoModelForCausalLM::from_pretrained(path);
  std::vector<int32_t> ids = model.encode(text);
  ids.resize(std::min<size_t>(ids.size(), 128));
  QatModel qat = prepare_qat(model, {.format = "int4", .block = 64});
  for (int step = 0; step < 20; ++step) {
    const double loss = qat.train_step({{.ids = ids}}, 1e-3);
    std::cout << "step " << step + 1 << ", loss " << loss << "\n";
  }
  const std::vector<float> trained = model.logits(ids);  // computed in int4 already
  qat.save_pretrained(out);                              // an ordinary quantized folder
  qat.convert();                                         // or in memory

  const CausalLM written = AutoModelForCausalLM::from_pretrained(out);
  const bool same = model.logits(ids) == trained && written.logits(ids) == trained;
  std::cout << qat.modules().size() << " layers in int4, " << (same ? "the same bits" : "other bits") << "\n";
  return 0;
} catch (const Error& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
