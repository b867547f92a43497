#include "core/profile.h"

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

thread_local Profile* active_profile = nullptr;

}  // namespace

Profile::Profile() : start_(std::chrono::steady_clock::now()) { active_profile = this; }
Profile::~Profile() { active_profile = nullptr; }
Profile* Profile::active() { return active_profile; }

void Profile::add(std::string_view name, double seconds, uint64_t bytes) {
  auto row = std::find_if(rows_.begin(), rows_.end(), [&](const ProfileRow& r) { return r.name == name; });
  if (row == rows_.end()) row = rows_.insert(row, {.name = std::string(name)});
  ++row->calls;
  row->seconds += seconds;
  row->bytes += bytes;
}

std::vector<ProfileRow> Profile::take() {
  const auto now = std::chrono::steady_clock::now();
  ProfileRow other = {.name = "other", .seconds = std::chrono::duration<double>(now - start_).count()};
  for (const ProfileRow& row : rows_) other.seconds -= row.seconds;
  std::stable_sort(rows_.begin(), rows_.end(),
                   [](const ProfileRow& a, const ProfileRow& b) { return a.seconds > b.seconds; });
  rows_.push_back(std::move(other));
  start_ = now;
  return std::exchange(rows_, {});
}

}  // namespace nibble
