#include "formats/npz.h"

#include <boost/crc.hpp>
#include <cstdint>
#include <cstring>

#include "formats/message_text.h"

namespace hadal {
namespace {

constexpr std::string_view kMemberName = "arr_0.npy";
constexpr std::string_view kNpyMagic("\x93NUMPY\x01\x00", 8);
constexpr std::string_view kNpyHeader = "{'descr': '|O', 'fortran_order': False, 'shape': (), }";
constexpr size_t kNpyHeaderBytes = 118;  // padded, so that the pickle begins at byte 128

constexpr std::string_view kLocalMagic("PK\x03\x04", 4), kCentralMagic("PK\x01\x02", 4), kEndMagic("PK\x05\x06", 4);
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22;

uint32_t crc32(std::string_view bytes) {
  boost::crc_32_type crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return crc.checksum();
}

// Little-endian number of `size` bytes. Requires the range inside `bytes`.
uint32_t number(std::string_view bytes, size_t offset, size_t size) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + offset, size);
  return value;
}

template <typename... Args>
tl::unexpected<Error> corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kCorrupt, "npz: {}", fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
tl::unexpected<Error> unsupported(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kUnsupported, "npz: {}", fmt::format(format, std::forward<Args>(args)...));
}

struct Member {
  uint32_t crc = 0;
  size_t size = 0;
  size_t local_offset = 0;
  size_t central_offset = 0;  // its data must end before
};

// The one entry of the central directory.
Expected<Member> read_directory(std::string_view zip) {
  if (zip.size() < kEndBytes) return corrupt("{} bytes, an archive has at least {}", zip.size(), kEndBytes);
  const std::string_view end = zip.substr(zip.size() - kEndBytes);
  if (!end.starts_with(kEndMagic)) return corrupt("no end-of-archive record in the last {} bytes", kEndBytes);
  if (number(end, 10, 2) != 1) return unsupported("{} members, expected {} alone", number(end, 10, 2), kMemberName);
  const size_t central_size = number(end, 12, 4), central_offset = number(end, 16, 4);
  const size_t end_offset = zip.size() - kEndBytes;
  if (central_offset > end_offset || central_size != end_offset - central_offset || central_size < kCentralBytes) {
    return corrupt("directory of {} bytes at {}, the file has {}", central_size, central_offset, zip.size());
  }
  const std::string_view central = zip.substr(central_offset, central_size);
  if (!central.starts_with(kCentralMagic)) return corrupt("no directory entry at byte {}", central_offset);
  const size_t name_bytes = number(central, 28, 2);
  if (name_bytes + number(central, 30, 2) + number(central, 32, 2) + kCentralBytes != central_size) {
    return corrupt("directory entry longer than the directory");
  }
  if (const auto name = central.substr(kCentralBytes, name_bytes); name != kMemberName) {
    return unsupported("member {}, expected {}", quote_name(name), kMemberName);
  }
  if (number(central, 8, 2) & 1) return unsupported("{} is encrypted", kMemberName);
  if (const uint32_t method = number(central, 10, 2); method != 0) {
    return unsupported("{} is compressed (method {}), expected stored, as numpy.savez writes", kMemberName, method);
  }
  const Member member = {number(central, 16, 4), number(central, 24, 4), number(central, 42, 4), central_offset};
  if (number(central, 20, 4) != member.size) return corrupt("{} has two sizes", kMemberName);
  return member;
}

Expected<std::string_view> read_member(std::string_view zip) {
  HADAL_ASSIGN_OR_RETURN(const Member member, read_directory(zip));
  if (member.local_offset > member.central_offset || member.central_offset - member.local_offset < kLocalBytes) {
    return corrupt("{} at byte {}, the directory at {}", kMemberName, member.local_offset, member.central_offset);
  }
  const std::string_view local = zip.substr(member.local_offset, member.central_offset - member.local_offset);
  if (!local.starts_with(kLocalMagic)) return corrupt("no member at byte {}", member.local_offset);
  const size_t header_bytes = kLocalBytes + number(local, 26, 2) + number(local, 28, 2);
  if (header_bytes > local.size() || member.size > local.size() - header_bytes) {
    return corrupt("{} of {} bytes, {} left before the directory", kMemberName, member.size, local.size());
  }
  const std::string_view data = local.substr(header_bytes, member.size);
  if (const uint32_t crc = crc32(data); crc != member.crc) {
    return corrupt("{} has CRC-32 {:08x}, the directory says {:08x}", kMemberName, crc, member.crc);
  }
  return data;
}

Expected<std::string_view> read_npy(std::string_view npy) {
  if (npy.size() < kNpyMagic.size() + 2 || !npy.starts_with(kNpyMagic)) {
    return unsupported("{} does not begin as an NPY file of version 1.0", kMemberName);
  }
  const size_t begin = kNpyMagic.size() + 2, size = number(npy, kNpyMagic.size(), 2);
  if (size > npy.size() - begin) return corrupt("NPY header of {} bytes, {} left", size, npy.size() - begin);
  std::string_view header = npy.substr(begin, size);
  if (const size_t last = header.find_last_not_of(" \n"); last != std::string_view::npos)
    header = header.substr(0, last + 1);
  if (header != kNpyHeader) return unsupported("NPY header {}, expected {}", quote_name(header), kNpyHeader);
  return npy.substr(begin + size);
}

void append_number(std::string& out, uint64_t value, size_t size) {
  out.append(reinterpret_cast<const char*>(&value), size);
}

}  // namespace

Expected<Json> object_from_npz(std::string_view bytes, const PickleLimits& limits) {
  HADAL_ASSIGN_OR_RETURN(const std::string_view npy, read_member(bytes));
  HADAL_ASSIGN_OR_RETURN(const std::string_view pickle, read_npy(npy));
  return object_array_from_pickle(pickle, limits);
}

std::string npz_from_pickle(std::string_view pickle) {
  std::string npy(kNpyMagic);
  append_number(npy, kNpyHeaderBytes, 2);
  npy += kNpyHeader;
  npy.append(kNpyHeaderBytes - kNpyHeader.size() - 1, ' ');
  npy += '\n';
  npy += pickle;

  // What both headers share, from "version needed" to the length of the name.
  std::string common;
  append_number(common, 20, 2);    // version 2.0
  append_number(common, 0, 2);     // flags
  append_number(common, 0, 2);     // stored
  append_number(common, 0, 2);     // 00:00:00
  append_number(common, 0x21, 2);  // 1980-01-01
  append_number(common, crc32(npy), 4);
  append_number(common, npy.size(), 4);
  append_number(common, npy.size(), 4);
  append_number(common, kMemberName.size(), 2);

  std::string out(kLocalMagic);
  out += common;
  append_number(out, 20, 2);  // extra field: NumPy forces the 64-bit sizes
  out += kMemberName;
  append_number(out, 1, 2);
  append_number(out, 16, 2);
  append_number(out, npy.size(), 8);
  append_number(out, npy.size(), 8);
  out += npy;

  const size_t central_offset = out.size();
  out += kCentralMagic;
  append_number(out, 0x0314, 2);  // made by: Unix, 2.0
  out += common;
  append_number(out, 0, 2);           // extra
  append_number(out, 0, 2);           // comment
  append_number(out, 0, 2);           // disk
  append_number(out, 0, 2);           // internal attributes
  append_number(out, 0x01800000, 4);  // external: rw for the owner
  append_number(out, 0, 4);           // offset of the member
  out += kMemberName;
  const size_t central_size = out.size() - central_offset;

  out += kEndMagic;
  append_number(out, 0, 4);  // disks
  append_number(out, 1, 2);
  append_number(out, 1, 2);
  append_number(out, central_size, 4);
  append_number(out, central_offset, 4);
  append_number(out, 0, 2);  // comment
  return out;
}

}  // namespace hadal
