// A whole GGUF file: opened as a file and as a model, every tensor read and decoded.
#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_source.h"
#include "memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path = nibble::memory_file(data, size);
  try {
    const nibble::GgufFile file(path);
    for (const nibble::GgufTensor& tensor : file.tensors()) file.load_raw(tensor.name);
    const nibble::GgufModel model = nibble::open_gguf(path);
    for (const nibble::SourceTensor& tensor : model.weights->tensors()) {
      const nibble::Weight weight = model.weights->load(tensor.name);
      if (std::holds_alternative<nibble::QuantizedTensor>(weight)) nibble::decode(weight);
    }
  } catch (const nibble::Error&) {
  }
  return 0;
}
