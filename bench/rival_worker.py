"""A model in one of the libraries that nibble is compared with, measured as often as compare.py asks; the same requests
and answers as model_worker.cc. Usage: rival_worker.py LIBRARY MODEL THREADS, run with an interpreter that has the library."""

import resource
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def some_ids(count, vocab_size):
    return [100 + i * 7919 % (vocab_size - 200) for i in range(count)]


class Torch:
    """transformers, as it is or with one of its quantizations."""

    def __init__(self, library, folder, threads):
        import torch
        import transformers
        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        config = transformers.AutoConfig.from_pretrained(folder)
        causal = any("CausalLM" in name or "LMHead" in name for name in config.architectures or [])
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        dtype = torch.bfloat16 if library.endswith("-bf16") else torch.float32
        options = {"dtype": dtype}
        if library.startswith("bitsandbytes-nf4"):
            options["quantization_config"] = transformers.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        if library == "bitsandbytes-int8":
            options["quantization_config"] = transformers.BitsAndBytesConfig(load_in_8bit=True)
        self.model = auto.from_pretrained(folder, **options).eval()
        if library.startswith("torch-int8"):
            torch.backends.quantized.engine = library.removeprefix("torch-int8-")
            self.model = torch.ao.quantization.quantize_dynamic(self.model, {torch.nn.Linear}, dtype=torch.qint8)
        self.vocab_size = config.vocab_size

    def generate(self, prompt, fresh):
        ids = self.torch.tensor([some_ids(prompt, self.vocab_size)])
        start = time.perf_counter()
        out = self.model(ids, use_cache=True, logits_to_keep=1)
        middle = time.perf_counter()
        for _ in range(fresh - 1):
            token = out.logits[:, -1:].argmax(-1)
            out = self.model(token, past_key_values=out.past_key_values, use_cache=True)
        return middle - start, time.perf_counter() - middle

    def train(self, tokens):
        if not hasattr(self, "optimizer"): self.add_adapter()
        ids = self.torch.tensor([some_ids(tokens, self.vocab_size)])
        start = time.perf_counter()
        self.model(input_ids=ids, labels=ids).loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def add_adapter(self):
        import peft
        self.torch.set_grad_enabled(True)
        config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        self.model = peft.get_peft_model(self.model, config).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self.torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.0)

    def encode(self, batch, tokens):
        ids = self.torch.tensor(some_ids(batch * tokens, self.vocab_size)).reshape(batch, tokens)
        mask = self.torch.ones_like(ids)
        start = time.perf_counter()
        self.model(input_ids=ids, attention_mask=mask)
        return [time.perf_counter() - start]


class LlamaCpp:
    """A GGUF file in llama.cpp, through the package llama-cpp-python."""

    def __init__(self, library, file, threads):
        import llama_cpp
        self.model = llama_cpp.Llama(file, n_ctx=2048, n_batch=2048, n_ubatch=512, n_threads=threads,
                                     n_threads_batch=threads, verbose=False)

    def generate(self, prompt, fresh):
        self.model.reset()
        ids = some_ids(prompt, self.model.n_vocab())
        start = time.perf_counter()
        self.model.eval(ids)
        middle = time.perf_counter()
        for i in range(fresh - 1): self.model.eval([ids[i % len(ids)]])
        return middle - start, time.perf_counter() - middle


def main():
    library, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    worker = (LlamaCpp if library == "llama.cpp" else Torch)(library, path, threads)
    print("ready", flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        print(*(f"{s:.6f}" for s in getattr(worker, what)(*map(int, numbers))), flush=True)


if __name__ == "__main__":
    main()
