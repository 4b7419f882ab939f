#include "comm/net_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hadal {
namespace {

using ::testing::HasSubstr;

TEST(NetAddress, ChoosesTheInterfaceThatLeadsThere) {
  const InterfaceAddress own = choose_interface("127.0.0.1", "").value();
  EXPECT_EQ(own.interface_name, "lo");
  EXPECT_EQ(own.address, "127.0.0.1");
  EXPECT_TRUE(own.is_loopback);
  EXPECT_GE(own.mtu, 1500);
  EXPECT_EQ(choose_interface("127.0.0.1", "lo").value().address, "127.0.0.1");
  EXPECT_EQ(choose_interface("192.0.2.1", "127.0.0.1").value().interface_name, "lo");
}

TEST(NetAddress, NamesWhatThereIs) {
  const auto unknown = choose_interface("127.0.0.1", "eht0");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(unknown.error().message, HasSubstr("no interface named eht0"));
  EXPECT_THAT(unknown.error().message, HasSubstr("lo 127.0.0.1"));
  EXPECT_THAT(choose_interface("no-such-host.invalid", "").error().message, HasSubstr("is not known here"));
}

TEST(NetAddress, RefusesLoopbackBetweenNodesUnlessItIsNamed) {
  const InterfaceAddress own = choose_interface("127.0.0.1", "").value();
  EXPECT_THAT(check_not_loopback("127.0.0.1", own, "").error().message,
              HasSubstr("give rank 0's address in the network between the nodes"));
  EXPECT_THAT(check_not_loopback("head", own, "").error().message, HasSubstr("/etc/hosts"));
  EXPECT_TRUE(check_not_loopback("127.0.0.1", own, "lo"));
  EXPECT_TRUE(is_loopback_address("127.0.1.1"));
  EXPECT_TRUE(is_loopback_address("::1"));
  EXPECT_FALSE(is_loopback_address("10.0.0.1"));
}

}  // namespace
}  // namespace hadal
