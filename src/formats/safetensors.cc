#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <tuple>

#include "base/json.h"
#include "base/names.h"
#include "formats/message_text.h"

namespace hadal {
namespace {

constexpr uint64_t kLengthFieldBytes = 8;
constexpr const char* kMetadataKey = "__metadata__";
// A tensor takes 8; Kimi-K2 has 140k tensors in all. Keeps the parsed header below about 300 MB whatever the text.
constexpr size_t kMaxHeaderValues = 4'000'000;

Status parse_metadata(const Json& json, std::map<std::string, std::string>& out) {
  if (!json.is_object()) {
    return make_error(ErrorCode::kCorrupt, "{} is {}, expected an object of strings", kMetadataKey, json.type_name());
  }
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      return make_error(ErrorCode::kCorrupt, "{}: value of {} is {}, expected a string", kMetadataKey, quote_name(key),
                        value.type_name());
    }
    out.emplace(key, value.get_ref<const std::string&>());
  }
  return {};
}

Expected<DType> parse_header_dtype(const Json& json) {
  if (!json.is_string()) {
    return make_error(ErrorCode::kCorrupt, "dtype is {}, expected a string", show_json(json));
  }
  const std::string& name = json.get_ref<const std::string&>();
  if (const auto dtype = parse_dtype(name)) return *dtype;
  const std::string near = closest_name(name, dtype_names());
  return make_error(ErrorCode::kUnsupported, "unknown dtype {}{}", quote_name(name),
                    near.empty() ? "" : fmt::format(", the nearest known is \"{}\"", near));
}

// A JSON integer in [0, 2^63).
std::optional<int64_t> as_index(const Json& json) {
  if (json.is_number_unsigned()) {
    const uint64_t value = json.get<uint64_t>();
    if (value <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(value);
  }
  return std::nullopt;
}

Expected<Shape> parse_header_shape(const Json& json) {
  if (!json.is_array()) return make_error(ErrorCode::kCorrupt, "shape is {}, expected a list", show_json(json));
  if (json.size() > Shape::kMaxRank) {
    return make_error(ErrorCode::kUnsupported, "shape has {} dimensions, at most {} are supported", json.size(),
                      Shape::kMaxRank);
  }
  std::vector<int64_t> dims;
  for (const Json& dim : json) {
    const auto value = as_index(dim);
    if (!value) {
      return make_error(ErrorCode::kCorrupt, "shape {} holds {}, expected integers from 0 to 2^63 - 1", show_json(json),
                        show_json(dim));
    }
    dims.push_back(*value);
  }
  return *Shape::from_dims(dims);
}

// Sets data_begin and data_end from offsets relative to the data section of `data_size_bytes`.
Status parse_data_offsets(const Json& json, uint64_t section_begin, TensorInfo& tensor) {
  const auto begin = json.is_array() && json.size() == 2 ? as_index(json[0]) : std::nullopt;
  const auto end = json.is_array() && json.size() == 2 ? as_index(json[1]) : std::nullopt;
  if (!begin || !end) {
    return make_error(ErrorCode::kCorrupt, "data_offsets is {}, expected [begin, end]", show_json(json));
  }
  if (*begin > *end) {
    return make_error(ErrorCode::kCorrupt, "data_offsets [{}, {}] are reversed: begin is after end", *begin, *end);
  }
  tensor.data_begin = section_begin + static_cast<uint64_t>(*begin);
  tensor.data_end = section_begin + static_cast<uint64_t>(*end);
  return {};
}

Status check_size(const TensorInfo& tensor) {
  const auto expected = tensor.shape.checked_size_bytes(tensor.dtype);
  if (!expected) {
    return make_error(ErrorCode::kCorrupt, "shape {} of {} overflows 64 bits", tensor.shape.to_string(),
                      dtype_name(tensor.dtype));
  }
  if (*expected != tensor.size_bytes()) {
    return make_error(ErrorCode::kCorrupt, "shape {} of {} needs {} bytes, data_offsets give {}",
                      tensor.shape.to_string(), dtype_name(tensor.dtype), *expected, tensor.size_bytes());
  }
  return {};
}

Expected<TensorInfo> parse_tensor(const std::string& name, const Json& json, uint64_t section_begin) {
  if (name.empty()) return make_error(ErrorCode::kCorrupt, "empty name");
  if (!json.is_object()) {
    return make_error(ErrorCode::kCorrupt, "entry is {}, expected an object of dtype, shape and data_offsets",
                      show_json(json));
  }
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!json.contains(key)) return make_error(ErrorCode::kCorrupt, "\"{}\" is missing", key);
  }
  for (const auto& [key, value] : json.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return make_error(ErrorCode::kUnsupported, "unknown key {}", quote_name(key));
    }
  }
  TensorInfo tensor;
  tensor.name = name;
  HADAL_ASSIGN_OR_RETURN(tensor.dtype, parse_header_dtype(json["dtype"]));
  HADAL_ASSIGN_OR_RETURN(tensor.shape, parse_header_shape(json["shape"]));
  HADAL_RETURN_IF_ERROR(parse_data_offsets(json["data_offsets"], section_begin, tensor));
  HADAL_RETURN_IF_ERROR(check_size(tensor));
  return tensor;
}

// `tensors` sorted by data: they must cover [section_begin, file_size_bytes) exactly.
Status check_coverage(const std::vector<TensorInfo>& tensors, uint64_t section_begin, uint64_t file_size_bytes) {
  uint64_t position = section_begin;
  const TensorInfo* previous = nullptr;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.data_begin < position) {
      return make_error(ErrorCode::kCorrupt, "tensors {} and {} overlap: bytes {} to {} and {} to {}",
                        quote_name(previous->name), quote_name(tensor.name), previous->data_begin, previous->data_end,
                        tensor.data_begin, tensor.data_end);
    }
    if (tensor.data_begin > position) {
      return make_error(ErrorCode::kCorrupt, "hole of {} bytes before tensor {}: it begins at byte {}, expected {}",
                        tensor.data_begin - position, quote_name(tensor.name), tensor.data_begin, position);
    }
    position = tensor.data_end;
    previous = &tensor;
  }
  if (position > file_size_bytes) {
    const auto cut = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const TensorInfo& tensor) { return tensor.data_end > file_size_bytes; });
    return make_error(ErrorCode::kCorrupt,
                      "truncated: the header describes {} bytes, the file has {}; cut inside tensor {} "
                      "({} of {} tensors incomplete); fetch the file again",
                      position, file_size_bytes, quote_name(cut->name), tensors.end() - cut, tensors.size());
  }
  if (position < file_size_bytes) {
    return make_error(ErrorCode::kCorrupt,
                      "{} bytes after the last tensor: the header describes {} bytes, the file has {}",
                      file_size_bytes - position, position, file_size_bytes);
  }
  return {};
}

// The header's length, checked against the file.
Expected<uint64_t> read_header_length(const File& file) {
  if (file.size_bytes() < kLengthFieldBytes) {
    return make_error(ErrorCode::kCorrupt,
                      "{} bytes, shorter than the {}-byte header length of a safetensors file; fetch the file again",
                      file.size_bytes(), kLengthFieldBytes);
  }
  uint8_t field[kLengthFieldBytes];
  HADAL_RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(field))));
  if (std::memcmp(field, "version ", sizeof field) == 0) {
    return make_error(ErrorCode::kCorrupt, "a Git LFS pointer, not the data it stands for; run: git lfs pull");
  }
  uint64_t length = 0;
  for (size_t i = 0; i < sizeof field; ++i) length |= static_cast<uint64_t>(field[i]) << (8 * i);
  if (length > kMaxSafetensorsHeaderBytes) {
    return make_error(ErrorCode::kCorrupt,
                      "header length says {} bytes, at most {} are accepted: not a safetensors file, or damaged at "
                      "its start",
                      length, kMaxSafetensorsHeaderBytes);
  }
  if (length > file.size_bytes() - kLengthFieldBytes) {
    return make_error(ErrorCode::kCorrupt,
                      "truncated: header length says {} bytes, the file has {} after the length field; fetch the file "
                      "again",
                      length, file.size_bytes() - kLengthFieldBytes);
  }
  return length;
}

Expected<SafetensorsHeader> read_header(const File& file) {
  HADAL_ASSIGN_OR_RETURN(const uint64_t length, read_header_length(file));
  std::string json(length, '\0');
  HADAL_RETURN_IF_ERROR(file.read_at(kLengthFieldBytes, std::as_writable_bytes(std::span(json))));
  return parse_safetensors_header(json, kLengthFieldBytes + length, file.size_bytes());
}

}  // namespace

Expected<SafetensorsHeader> parse_safetensors_header(std::string_view json, uint64_t data_begin,
                                                     uint64_t file_size_bytes) {
  // {"name": {"shape": [1, 2]}} nests three deep.
  auto parsed = parse_json(json, {.max_bytes = kMaxSafetensorsHeaderBytes,
                                  .max_depth = 3,
                                  .max_values = kMaxHeaderValues,
                                  .refuse_duplicate_keys = true});
  if (!parsed) return forward_error(std::move(parsed), "header");
  if (!parsed->is_object()) {
    return make_error(ErrorCode::kCorrupt, "header is {}, expected an object", parsed->type_name());
  }
  SafetensorsHeader header;
  header.tensors.reserve(parsed->size());
  for (const auto& [name, value] : parsed->items()) {
    if (name == kMetadataKey) {
      HADAL_RETURN_IF_ERROR(parse_metadata(value, header.metadata));
      continue;
    }
    auto tensor = parse_tensor(name, value, data_begin);
    if (!tensor) return forward_error(std::move(tensor), fmt::format("tensor {}", quote_name(name)));
    header.tensors.push_back(std::move(*tensor));
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.data_begin, a.data_end, a.name) < std::tie(b.data_begin, b.data_end, b.name);
  });
  HADAL_RETURN_IF_ERROR(check_coverage(header.tensors, data_begin, file_size_bytes));
  return header;
}

SafetensorsFile::SafetensorsFile(File file, SafetensorsHeader header)
    : file_(std::move(file)), header_(std::move(header)), by_name_(header_.tensors.size()) {
  std::iota(by_name_.begin(), by_name_.end(), size_t{0});
  std::sort(by_name_.begin(), by_name_.end(),
            [this](size_t a, size_t b) { return header_.tensors[a].name < header_.tensors[b].name; });
}

Expected<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(File file, File::open(path));
  auto header = read_header(file);
  if (!header) return forward_error(std::move(header), path.string());
  return SafetensorsFile(std::move(file), std::move(*header));
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name, [this](size_t idx, std::string_view wanted) {
    return header_.tensors[idx].name < wanted;
  });
  if (at == by_name_.end() || header_.tensors[*at].name != name) return nullptr;
  return &header_.tensors[*at];
}

Status SafetensorsFile::read(const TensorInfo& tensor, std::span<std::byte> out) const {
  if (out.size() != tensor.size_bytes()) {
    return make_error(ErrorCode::kInvalidArgument, "{}: tensor \"{}\" has {} bytes, the destination {}",
                      path().string(), tensor.name, tensor.size_bytes(), out.size());
  }
  return read_range(tensor, 0, out);
}

Status SafetensorsFile::read_range(const TensorInfo& tensor, uint64_t offset_bytes, std::span<std::byte> out) const {
  if (offset_bytes > tensor.size_bytes() || out.size() > tensor.size_bytes() - offset_bytes) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} bytes from {} leave tensor \"{}\" of {} bytes",
                      path().string(), out.size(), offset_bytes, tensor.name, tensor.size_bytes());
  }
  return file_.read_at(tensor.data_begin + offset_bytes, out);
}

}  // namespace hadal
