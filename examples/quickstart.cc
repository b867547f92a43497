// Quantizes a model while loading it, says what that costs on a text, and lets the small model continue a sentence.
//   quickstart MODEL TEXT_FILE
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "nibble/nibble.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw nibble::Error(nibble::ErrorCode::invalid_argument, "usage: quickstart MODEL TEXT_FILE");
  const std::string path = argv[1];
  std::ifstream file(argv[2]);
  const std::string text(std::istreambuf_iterator<char>(file), {});

  const nibble::BitsAndBytesConfig config{
      .load_in_4bit = true, .bnb_4bit_quant_type = "nf4", .bnb_4bit_use_double_quant = true};
  const auto original = nibble::AutoModelForCausalLM::from_pretrained(path);
  const auto model = nibble::AutoModelForCausalLM::from_pretrained(path, {.quantization_config = config});

  const nibble::EvaluateOptions options{.max_tokens = 1024};
  const auto chunks = nibble::evaluation_chunks(model, text, options);
  const nibble::EvaluateReport report = nibble::evaluate(model, &original, chunks, options);
  std::cout << "bytes " << report.reference_bytes << " -> " << report.bytes << "\n"
            << "perplexity " << report.reference_perplexity << " -> " << report.perplexity << "\n"
            << "KL " << report.kl_mean << " nats, same likeliest token " << 100 * report.top1_agreement << " %\n";

  const std::string prompt = "The captain of the ship said that";
  std::cout << prompt << model.generate(prompt, {.max_tokens = 24}).text << "\n";
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
