#include "tasks/finetune_settings.h"

#include "io/peft.h"

namespace nibble {
namespace {

Json lora_settings(const FinetuneOptions& o) {
  if (!o.use_lora) return {};
  Json lora = lora_config_json(o.lora);
  lora.erase("base_model_name_or_path");  // a model may be moved
  return lora;
}

Json list_of(const std::vector<std::string>& names) {
  Json list = Json::array();
  for (const std::string& name : names) list.push_back(name);
  return list;
}

}  // namespace

Json settings_of_run(const FinetuneOptions& o) {
  return Json::object({{"method", o.method},
                       {"use_lora", o.use_lora},
                       {"lora", lora_settings(o)},
                       {"format", o.format.empty() ? Json() : Json(o.format)},
                       {"block", o.block},
                       {"double_quant", o.double_quant},
                       {"granularity", o.granularity},
                       {"skip", list_of(o.skip)},
                       {"qat_activations", o.qat_activations},
                       {"activations", o.activations},
                       {"compute_dtype", o.compute_dtype ? Json(dtype_name(*o.compute_dtype)) : Json()},
                       {"merge_aware", o.merge_aware},
                       {"batch", o.batch},
                       {"grad_accum", o.grad_accum},
                       {"max_length", o.max_length},
                       {"packing", o.packing},
                       {"shuffle", o.shuffle},
                       {"seed", o.seed},
                       {"optimizer", o.optimizer},
                       {"learning_rate", o.learning_rate ? Json(*o.learning_rate) : Json()},
                       {"schedule", o.schedule},
                       {"warmup", o.warmup},
                       {"weight_decay", o.weight_decay},
                       {"beta1", o.beta1},
                       {"beta2", o.beta2},
                       {"epsilon", o.epsilon},
                       {"momentum", o.momentum},
                       {"max_grad_norm", o.max_grad_norm}});
}

Json all_settings(const FinetuneOptions& o) {
  Json settings = Json::object({{"data", o.data},
                                {"eval_data", o.eval_data},
                                {"task", o.task},
                                {"init_adapter", o.init_adapter},
                                {"epochs", o.epochs},
                                {"steps", o.steps},
                                {"gradient_checkpointing", o.gradient_checkpointing},
                                {"eval_every", o.eval_every},
                                {"early_stopping", o.early_stopping},
                                {"save_every", o.save_every},
                                {"save_limit", o.save_limit},
                                {"on_nonfinite", o.on_nonfinite},
                                {"resume", o.resume},
                                {"tensorboard", o.tensorboard},
                                {"overwrite", o.overwrite}});
  const Json of_run = settings_of_run(o);
  for (const auto& [key, value] : of_run.as_object("settings")) settings.set(key, value);
  return settings;
}

}  // namespace nibble
