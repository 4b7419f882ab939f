#include "quant/convert_journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/file.h"
#include "formats/message_text.h"
#include "quant/output_file.h"
#include "quant/sidecar.h"

namespace hadal {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMaxJournalBytes = 256u << 20;
constexpr size_t kHashDigits = 16;
constexpr int kJournalVersion = 1;

tl::unexpected<Error> os_error(const fs::path& path, const char* what) {
  const int code = errno;
  const bool full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  return make_error(full ? ErrorCode::kResourceExhausted : ErrorCode::kIo, "{}: cannot {}: {}", path.string(), what,
                    std::strerror(code));
}

std::string line_of(const Json& fact) {
  const std::string text = dump_json(fact);
  return fmt::format("{:016x} {}\n", hash_bytes(std::as_bytes(std::span(text))), text);
}

// Nothing for a line that was torn or altered.
std::optional<Json> fact_of(std::string_view line) {
  if (line.size() <= kHashDigits || line[kHashDigits] != ' ') return std::nullopt;
  const std::string_view text = line.substr(kHashDigits + 1);
  if (line.substr(0, kHashDigits) != fmt::format("{:016x}", hash_bytes(std::as_bytes(std::span(text))))) {
    return std::nullopt;
  }
  auto json = parse_json(text, {.max_bytes = kMaxJournalBytes, .max_depth = 8});
  return json && json->is_object() ? std::optional<Json>(std::move(*json)) : std::nullopt;
}

Json identity_json(const SourceIdentity& identity) {
  return Json::array({identity.size_bytes, identity.mtime_ns, identity.header_hash});
}

SourceIdentity identity_from(const Json& json) {
  return {json.at(0).get<uint64_t>(), json.at(1).get<int64_t>(), json.at(2).get<uint64_t>()};
}

Json record_json(const ShardRecord& record) {
  Json tensors = Json::array();
  for (const TensorReport& tensor : record.tensors) {
    const CodeMapStats& stats = tensor.stats;
    tensors.push_back(Json::array({tensor.name, stats.num_codes, stats.num_inexact, stats.num_nan,
                                   stats.max_relative_error, stats.signal, stats.noise, stats.num_zero_rows}));
  }
  return {{"shard", record.file_name},
          {"source", identity_json(record.source)},
          {"output", Json::array({record.output.size_bytes, 0, record.output.header_hash})},
          {"sidecar_bytes", record.sidecar_bytes},
          {"tensors", std::move(tensors)}};
}

// Throws for JSON of another shape; the caller turns that into kCorrupt.
ShardRecord record_from(const Json& json) {
  ShardRecord record;
  record.file_name = json.at("shard").get<std::string>();
  record.source = identity_from(json.at("source"));
  record.output = identity_from(json.at("output"));
  record.sidecar_bytes = json.at("sidecar_bytes").get<uint64_t>();
  for (const Json& tensor : json.at("tensors")) {
    record.tensors.push_back({tensor.at(0).get<std::string>(),
                              {.num_codes = tensor.at(1).get<uint64_t>(),
                               .num_inexact = tensor.at(2).get<uint64_t>(),
                               .num_nan = tensor.at(3).get<uint64_t>(),
                               .max_relative_error = tensor.at(4).get<double>(),
                               .signal = tensor.at(5).get<double>(),
                               .noise = tensor.at(6).get<double>(),
                               .num_zero_rows = tensor.at(7).get<uint64_t>()}});
  }
  return record;
}

bool has_files_of_others(const fs::path& dir) {
  std::error_code code;
  for (fs::directory_iterator at(dir, code), end; !code && at != end; at.increment(code)) {
    if (!at->path().filename().string().starts_with(".")) return true;
  }
  return false;
}

}  // namespace

ConvertJournal::ConvertJournal(ConvertJournal&& other) noexcept
    : path_(std::move(other.path_)),
      folder_fd_(std::exchange(other.folder_fd_, -1)),
      fd_(std::exchange(other.fd_, -1)),
      shards_(std::move(other.shards_)),
      complete_(other.complete_) {}

ConvertJournal::~ConvertJournal() {
  if (fd_ >= 0) ::close(fd_);
  if (folder_fd_ >= 0) ::close(folder_fd_);
}

Expected<ConvertJournal> ConvertJournal::open(const fs::path& dir, const Json& conversion) {
  const int folder_fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd < 0) return os_error(dir, "open");
  ConvertJournal journal(dir / kConvertJournalName, folder_fd);
  // File systems without locks are taken at their word.
  if (::flock(folder_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return make_error(ErrorCode::kUnavailable, "{}: another hadal convert is writing into this folder", dir.string());
  }
  remove_stale_temporaries(dir);
  std::error_code ignored;
  if (fs::exists(journal.path_, ignored)) {
    HADAL_RETURN_IF_ERROR(journal.load(conversion));
  } else {
    if (has_files_of_others(dir)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: not empty, and not begun by hadal convert (no {}); give an empty or a new folder",
                        dir.string(), kConvertJournalName);
    }
    HADAL_RETURN_IF_ERROR(journal.begin(conversion));
  }
  journal.fd_ = ::open(journal.path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (journal.fd_ < 0) return os_error(journal.path_, "open for writing");
  return journal;
}

Status ConvertJournal::begin(const Json& conversion) {
  const Json first = {{"journal", "hadal convert"}, {"version", kJournalVersion}, {"conversion", conversion}};
  HADAL_RETURN_IF_ERROR(write_file_atomically(path_, line_of(first)));
  ::fsync(folder_fd_);
  return {};
}

Status ConvertJournal::load(const Json& conversion) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path_, kMaxJournalBytes));
  size_t position = 0;
  bool first = true;
  while (position < text.size()) {
    const size_t end = text.find('\n', position);
    if (end == std::string::npos) break;
    const auto fact = fact_of(std::string_view(text).substr(position, end - position));
    if (!fact) break;
    if (first) {
      if (!fact->contains("version") || (*fact)["version"] != kJournalVersion || !fact->contains("conversion")) {
        return make_error(ErrorCode::kUnsupported,
                          "{}: written by another version of hadal; use that one, or a new folder", path_.string());
      }
      const Json& begun = (*fact)["conversion"];
      if (begun != conversion) {
        return make_error(ErrorCode::kInvalidArgument,
                          "{}: this folder was begun as {}, now {} is asked; give the same options again, or another "
                          "output folder",
                          path_.string(), dump_json(begun), dump_json(conversion));
      }
    } else if (fact->contains("complete")) {
      complete_ = true;
    } else {
      try {
        shards_.push_back(record_from(*fact));
      } catch (const nlohmann::json::exception&) {
        return make_error(ErrorCode::kCorrupt,
                          "{}: a line with another content than expected; give another output folder", path_.string());
      }
    }
    first = false;
    position = end + 1;
  }
  if (first) {
    return make_error(ErrorCode::kCorrupt, "{}: the first line is damaged; remove the output folder and start again",
                      path_.string());
  }
  if (position < text.size() && ::truncate(path_.c_str(), static_cast<off_t>(position)) != 0) {
    return os_error(path_, "cut the torn last line off");
  }
  return {};
}

Status ConvertJournal::append(const Json& fact) {
  const std::string line = line_of(fact);
  std::string_view left = line;
  while (!left.empty()) {
    const ssize_t written = ::write(fd_, left.data(), left.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return os_error(path_, "write");
    }
    left.remove_prefix(static_cast<size_t>(written));
  }
  if (::fsync(fd_) != 0) return os_error(path_, "fsync");
  return {};
}

const ShardRecord* ConvertJournal::find(const std::string& file_name) const {
  // The latest: a shard that was lost after it had been finished is made again.
  const auto at = std::find_if(shards_.rbegin(), shards_.rend(),
                               [&](const ShardRecord& record) { return record.file_name == file_name; });
  return at != shards_.rend() ? &*at : nullptr;
}

Status ConvertJournal::add(ShardRecord record) {
  HADAL_RETURN_IF_ERROR(append(record_json(record)));
  shards_.push_back(std::move(record));
  return {};
}

Status ConvertJournal::mark_complete() {
  if (complete_) return {};
  HADAL_RETURN_IF_ERROR(append({{"complete", true}}));
  complete_ = true;
  return {};
}

Expected<std::string> read_shard_header(const SafetensorsFile& file) {
  const uint64_t size = file.tensors().empty() ? file.size_bytes() : file.tensors().front().data_begin;
  std::string header(size, '\0');
  HADAL_RETURN_IF_ERROR(file.file().read_at(0, std::as_writable_bytes(std::span(header))));
  return header;
}

Expected<SourceIdentity> identify_shard(const SafetensorsFile& file) {
  struct stat info {};
  if (::fstat(file.file().fd(), &info) != 0) return os_error(file.path(), "stat");
  HADAL_ASSIGN_OR_RETURN(const std::string header, read_shard_header(file));
  return SourceIdentity{.size_bytes = file.size_bytes(),
                        .mtime_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec,
                        .header_hash = hash_bytes(std::as_bytes(std::span(header)))};
}

}  // namespace hadal
