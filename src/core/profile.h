#pragma once
// Where the time of a computation goes: operations say when they begin and end, and how many bytes of weights they
// read.
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

/// All calls of one operation.
struct ProfileRow {
  std::string name;
  int64_t calls = 0;
  double seconds = 0;
  uint64_t bytes = 0;  // of weights read; 0 = not counted
};

/// While one lives, the operations that its thread calls are added up. One at a time per thread.
class Profile {
 public:
  Profile();
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// What was added up since the last call, the longest first, with the time between operations as the last row,
  /// "other"; and begins anew.
  std::vector<ProfileRow> take();

  static Profile* active();
  void add(std::string_view name, double seconds, uint64_t bytes);

 private:
  std::vector<ProfileRow> rows_;
  std::chrono::steady_clock::time_point start_;
};

/// An operation, from construction to destruction. Costs one comparison where nothing is profiled.
class ProfileScope {
 public:
  explicit ProfileScope(std::string_view name, uint64_t bytes = 0) : profile_(Profile::active()) {
    if (profile_ == nullptr) return;
    name_ = name;
    bytes_ = bytes;
    start_ = std::chrono::steady_clock::now();
  }
  ~ProfileScope() {
    if (profile_ == nullptr) return;
    profile_->add(name_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(), bytes_);
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  Profile* profile_;
  std::string_view name_;
  uint64_t bytes_ = 0;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace nibble
