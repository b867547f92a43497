#pragma once
// Output that is complete or absent: everything is written to a staging folder beside the final name, synced, and
// renamed into place at the end. Until then an older output of that name survives.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

enum class Overwrite { no, yes };

/// A file being written. Every write is complete (EINTR and short writes are looped).
class OutputFile {
 public:
  /// @throws Error{internal or resources} when it cannot be created.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Writes at a place of its own, before or behind what was written; does not count in written().
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  uint64_t written() const { return written_; }
  /// Syncs to the disk and closes. Without it the destructor closes unsynced.
  void close();

 private:
  std::filesystem::path path_;
  int fd_;
  uint64_t written_ = 0;
};

/// A folder that appears under its final name only by commit().
class OutputFolder {
 public:
  /// Locks `.NAME.nibble-lock` beside `path` and creates the staging folder `.NAME.nibble-tmp`, empty even when an
  /// earlier run left one.
  /// @throws Error{exists} when `path` exists and overwrite is no, or when another process has the lock.
  OutputFolder(const std::filesystem::path& path, Overwrite overwrite);
  /// Without commit(): removes the staging folder.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /// Where `name` is to be written.
  std::filesystem::path file(const std::string& name) const { return staging_ / name; }
  void write_text(const std::string& name, std::string_view text);
  /// Copies a file byte for byte. `name` may lie in a sub-folder, "1_Pooling/config.json", which is created.
  void copy(const std::filesystem::path& from, const std::string& name);
  /// @throws Error{resources} when the file system has fewer than `bytes` left.
  void require_space(uint64_t bytes) const;
  /// Syncs, renames into place, syncs the parent folder.
  void commit();

 private:
  class Lock;

  std::filesystem::path path_, staging_;
  Overwrite overwrite_;
  std::unique_ptr<Lock> lock_;
  bool committed_ = false;
};

/// The file that a name stands for, at the end of links, so that those stay when it is replaced.
std::filesystem::path final_path(const std::filesystem::path& path);
/// Where a file is written until publish_file(): hidden, beside its final name.
std::filesystem::path staging_path(const std::filesystem::path& path);
/// Gives a complete, closed file its final name, replacing one that is there, and syncs the folder.
void publish_file(const std::filesystem::path& staging, const std::filesystem::path& path);

/// One file that is written piece by piece and appears under its final name by commit(), replacing one that is there. A
/// device or a pipe is written to as it is.
class StagedFile {
 public:
  explicit StagedFile(const std::filesystem::path& path);
  /// Without commit(): removes what was written.
  ~StagedFile();
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;

  void write(std::span<const std::byte> bytes) { out_.write(bytes); }
  void commit();

 private:
  bool in_place_;
  std::filesystem::path path_, staging_;
  OutputFile out_;
  bool committed_ = false;
};

/// Writes one file the same way (staged, synced, renamed); an existing file is replaced, a device or a pipe written to.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace nibble
