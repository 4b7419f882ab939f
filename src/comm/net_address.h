// Which of this machine's addresses the other nodes can reach.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

struct sockaddr;

namespace hadal {

struct InterfaceAddress {
  std::string interface_name;  // "eth0"
  std::string address;         // numeric
  int mtu = 0;                 // bytes; 0: not known
  bool is_loopback = false;
};

// All IPv4 and IPv6 addresses of interfaces that are up; link-local IPv6 left out. Errors: kIo.
Expected<std::vector<InterfaceAddress>> list_interface_addresses();

// A name or number to numeric addresses, in the order of the system. Errors: kUnavailable naming it.
Expected<std::vector<std::string>> resolve_host(const std::string& host);
bool is_loopback_address(const std::string& address);
// "10.0.0.1", "fe80::1"; "" of other families.
std::string numeric_address(const sockaddr* address);

// The own address for talking to `master`: of the interface with this name, or this own address; if `wanted` is empty,
// of the interface that the system would send through. Errors: kInvalidArgument naming what there is instead;
// kUnavailable when nothing leads to master.
Expected<InterfaceAddress> choose_interface(const std::string& master, const std::string& wanted);

// Refuses loopback between nodes, unless it was asked for (several "nodes" on one machine). Errors: kInvalidArgument
// saying what to do.
Status check_not_loopback(const std::string& master, const InterfaceAddress& own, const std::string& wanted);

}  // namespace hadal
