#include "formats/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/json.h"

namespace hadal {
namespace {

constexpr size_t kDataAlignmentBytes = 8;

tl::unexpected<Error> os_error(const std::filesystem::path& path, const char* what) {
  return make_error(ErrorCode::kIo, "{}: cannot {}: {}", path.string(), what, std::strerror(errno));
}

}  // namespace

std::string build_safetensors_header(std::span<const TensorToWrite> tensors,
                                     const std::map<std::string, std::string>& metadata,
                                     std::vector<TensorInfo>* layout) {
  std::vector<TensorInfo> infos;
  std::unordered_set<std::string_view> names;
  // The entries are joined by hand: an ordered_json object looks through all keys at every insertion.
  std::string json = "{";
  if (!metadata.empty()) {
    Json values = Json::object();
    for (const auto& [key, value] : metadata) values[key] = value;
    json += "\"__metadata__\":" + dump_json(values);
  }
  uint64_t position = 0;
  for (const TensorToWrite& tensor : tensors) {
    const auto size_bytes = tensor.shape.checked_size_bytes(tensor.dtype);
    HADAL_CHECK(size_bytes.has_value() && names.insert(tensor.name).second, "{} {}", tensor.name,
                tensor.shape.to_string());
    const uint64_t end = position + *size_bytes;
    json +=
        fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", json.size() > 1 ? "," : "",
                    dump_json(Json(tensor.name)), dtype_name(tensor.dtype), tensor.shape.to_string(), position, end);
    infos.push_back({tensor.name, tensor.dtype, tensor.shape, position, end});
    position = end;
  }
  json += "}";
  json.append((kDataAlignmentBytes - json.size() % kDataAlignmentBytes) % kDataAlignmentBytes, ' ');

  std::string header;
  for (size_t i = 0; i < sizeof(uint64_t); ++i) {
    header.push_back(static_cast<char>((static_cast<uint64_t>(json.size()) >> (8 * i)) & 0xFF));
  }
  header += json;
  for (TensorInfo& info : infos) {
    info.data_begin += header.size();
    info.data_end += header.size();
  }
  if (layout != nullptr) *layout = std::move(infos);
  return header;
}

struct SafetensorsWriter::State {
  std::filesystem::path path;
  std::filesystem::path temporary;
  int fd = -1;
  std::vector<TensorInfo> layout;
  uint64_t data_begin = 0;
  uint64_t data_end = 0;
  uint64_t append_position = 0;
  std::atomic<uint64_t> num_bytes_written{0};

  ~State() {
    if (fd < 0) return;
    ::close(fd);
    ::unlink(temporary.c_str());
  }

  Status write_at(uint64_t offset, std::span<const std::byte> bytes) {
    const size_t num_bytes = bytes.size();
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0) {
        if (errno == EINTR) continue;
        return os_error(temporary, "write");
      }
      bytes = bytes.subspan(static_cast<size_t>(written));
      offset += static_cast<uint64_t>(written);
    }
    num_bytes_written.fetch_add(num_bytes, std::memory_order_relaxed);
    return {};
  }
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter::~SafetensorsWriter() = default;

Expected<SafetensorsWriter> SafetensorsWriter::create(const std::filesystem::path& path,
                                                      std::span<const TensorToWrite> tensors,
                                                      const std::map<std::string, std::string>& metadata) {
  auto state = std::make_unique<State>();
  state->path = path;
  state->temporary = path;
  state->temporary += fmt::format(".tmp.{}", ::getpid());
  const std::string header = build_safetensors_header(tensors, metadata, &state->layout);
  state->fd = ::open(state->temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (state->fd < 0) return os_error(state->temporary, "create");
  HADAL_RETURN_IF_ERROR(state->write_at(0, std::as_bytes(std::span(header))));
  state->data_begin = header.size();
  state->data_end = state->layout.empty() ? state->data_begin : state->layout.back().data_end;
  state->append_position = state->data_begin;
  state->num_bytes_written = 0;
  return SafetensorsWriter(std::move(state));
}

const std::vector<TensorInfo>& SafetensorsWriter::layout() const { return state_->layout; }

Status SafetensorsWriter::append(std::span<const std::byte> bytes) {
  State& state = *state_;
  if (bytes.size() > state.data_end - state.append_position) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} bytes appended, {} remain of the described data",
                      state.path.string(), bytes.size(), state.data_end - state.append_position);
  }
  HADAL_RETURN_IF_ERROR(state.write_at(state.append_position, bytes));
  state.append_position += bytes.size();
  return {};
}

Status SafetensorsWriter::write_range(size_t tensor_idx, uint64_t offset_bytes, std::span<const std::byte> bytes) {
  const TensorInfo& tensor = state_->layout.at(tensor_idx);
  if (offset_bytes > tensor.size_bytes() || bytes.size() > tensor.size_bytes() - offset_bytes) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} bytes from {} leave tensor \"{}\" of {} bytes",
                      state_->path.string(), bytes.size(), offset_bytes, tensor.name, tensor.size_bytes());
  }
  return state_->write_at(tensor.data_begin + offset_bytes, bytes);
}

Status SafetensorsWriter::finish() {
  State& state = *state_;
  const uint64_t expected = state.data_end - state.data_begin;
  if (state.num_bytes_written != expected) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} of {} data bytes written", state.path.string(),
                      state.num_bytes_written.load(), expected);
  }
  if (::close(std::exchange(state.fd, -1)) != 0) {
    ::unlink(state.temporary.c_str());
    return os_error(state.path, "close");
  }
  if (::rename(state.temporary.c_str(), state.path.c_str()) != 0) {
    ::unlink(state.temporary.c_str());
    return os_error(state.path, "rename to");
  }
  return {};
}

}  // namespace hadal
