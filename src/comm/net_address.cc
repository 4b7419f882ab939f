#include "comm/net_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include <fmt/ranges.h>

namespace hadal {
namespace {

bool is_link_local(const sockaddr* address) {
  return address->sa_family == AF_INET6 &&
         IN6_IS_ADDR_LINKLOCAL(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

int mtu_of(const char* name) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  const bool known = fd >= 0 && ioctl(fd, SIOCGIFMTU, &request) == 0;
  if (fd >= 0) close(fd);
  return known ? request.ifr_mtu : 0;
}

bool is_v6(const std::string& address) { return address.find(':') != std::string::npos; }

// The own address of a packet to `target`; "" with errno set when there is no route. Sends nothing.
std::string source_address(const std::string& target) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(target.c_str(), "9", &hints, &found) != 0) return "";
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage own{};
  socklen_t length = sizeof own;
  const bool known = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  errno = error;
  return known ? numeric_address(reinterpret_cast<sockaddr*>(&own)) : "";
}

std::string list_of(const std::vector<InterfaceAddress>& all) {
  std::vector<std::string> shown;
  for (const InterfaceAddress& entry : all) shown.push_back(entry.interface_name + " " + entry.address);
  return fmt::format("{}", fmt::join(shown, ", "));
}

}  // namespace

std::string numeric_address(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text, sizeof text);
  } else if (address->sa_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text, sizeof text);
  }
  return text;
}

Expected<std::vector<InterfaceAddress>> list_interface_addresses() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) {
    return make_error(ErrorCode::kIo, "cannot list network interfaces: {}", std::strerror(errno));
  }
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(first, freeifaddrs);
  std::vector<InterfaceAddress> all;
  for (const ifaddrs* entry = first; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_UP) == 0 || is_link_local(entry->ifa_addr)) continue;
    std::string address = numeric_address(entry->ifa_addr);
    if (address.empty()) continue;
    all.push_back(
        {entry->ifa_name, std::move(address), mtu_of(entry->ifa_name), (entry->ifa_flags & IFF_LOOPBACK) != 0});
  }
  return all;
}

Expected<std::vector<std::string>> resolve_host(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (code != 0) {
    return make_error(ErrorCode::kUnavailable, "host \"{}\" is not known here ({}): give its IP address", host,
                      gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  std::vector<std::string> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    addresses.push_back(numeric_address(entry->ai_addr));
  }
  return addresses;
}

bool is_loopback_address(const std::string& address) { return address.starts_with("127.") || address == "::1"; }

Expected<InterfaceAddress> choose_interface(const std::string& master, const std::string& wanted) {
  HADAL_ASSIGN_OR_RETURN(const std::vector<std::string> targets, resolve_host(master));
  HADAL_ASSIGN_OR_RETURN(const std::vector<InterfaceAddress> all, list_interface_addresses());
  if (!wanted.empty()) {
    const InterfaceAddress* other_family = nullptr;
    for (const InterfaceAddress& entry : all) {
      if (entry.address == wanted) return entry;
      if (entry.interface_name != wanted) continue;
      if (is_v6(entry.address) == is_v6(targets[0])) return entry;
      other_family = &entry;
    }
    if (other_family != nullptr) {
      return make_error(ErrorCode::kInvalidArgument, "interface {} has the address {}, which cannot reach {} ({})",
                        wanted, other_family->address, master, targets[0]);
    }
    return make_error(ErrorCode::kInvalidArgument, "no interface named {} that is up and has an address; here are: {}",
                      wanted, list_of(all));
  }
  for (const std::string& target : targets) {
    const std::string own = source_address(target);
    const auto found = std::find_if(all.begin(), all.end(), [&](const auto& entry) { return entry.address == own; });
    if (!own.empty() && found != all.end()) return *found;
    if (!own.empty()) return InterfaceAddress{"", own, 0, is_loopback_address(own)};
  }
  return make_error(ErrorCode::kUnavailable, "no interface leads to {} ({}): {}; here are: {}", master, targets[0],
                    std::strerror(errno), list_of(all));
}

Status check_not_loopback(const std::string& master, const InterfaceAddress& own, const std::string& wanted) {
  if (!wanted.empty() || !own.is_loopback) return {};
  return make_error(ErrorCode::kInvalidArgument,
                    "{} is a loopback address here ({}), which other nodes cannot reach: give rank 0's address in the "
                    "network between the nodes{}; for several nodes on one machine name the interface, lo",
                    master, own.address,
                    is_loopback_address(master) ? "" : " (its name stands for 127.* in /etc/hosts)");
}

}  // namespace hadal
