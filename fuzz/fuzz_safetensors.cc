// A whole safetensors file: opened, every tensor read.
#include "core/error.h"
#include "io/safetensors.h"
#include "memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const nibble::SafetensorsFile file(nibble::memory_file(data, size));
    for (const nibble::SafetensorsEntry& entry : file.entries()) {
      file.load_bytes(entry.name);
      file.load(entry.name);
    }
  } catch (const nibble::Error&) {
  }
  return 0;
}
