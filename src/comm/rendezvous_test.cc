#include "comm/rendezvous.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <thread>
#include <vector>

#include "comm/rendezvous_frame.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr milliseconds kLong{30'000};

RendezvousOptions options_of(uint16_t port = 0) {
  return {.address = "127.0.0.1", .port = port, .token = "secret", .facts = {{"version", "1"}, {"config", "abc"}}};
}

// A connection of a stranger; returns what it is answered until the server closes.
std::string talk(uint16_t port, std::string_view bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
  EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t got; (got = recv(fd, buffer, sizeof buffer, 0)) > 0;) answer.append(buffer, got);
  close(fd);
  return answer;
}

TEST(Rendezvous, RanksFindEachOthersValues) {
  const auto server = RendezvousServer::start(options_of()).value();
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 8; ++rank) {
    ranks.emplace_back([&, rank] {
      const auto store = connect_rendezvous(options_of(server->port()), rank, kLong);
      ASSERT_TRUE(store) << store.error().message;
      ASSERT_TRUE((*store)->set(fmt::format("address/{}", rank), std::string(1000, static_cast<char>('a' + rank))));
      for (int peer = 0; peer < 8; ++peer) {
        const auto value = (*store)->get(fmt::format("address/{}", peer), kLong);
        ASSERT_TRUE(value) << value.error().message;
        EXPECT_EQ(*value, std::string(1000, static_cast<char>('a' + peer)));
      }
    });
  }
  for (auto& rank : ranks) rank.join();
}

TEST(Rendezvous, WaitsForAKeyAndNamesTheMissingOne) {
  const auto server = RendezvousServer::start(options_of()).value();
  const auto waiting = connect_rendezvous(options_of(server->port()), 0, kLong).value();
  const auto setting = connect_rendezvous(options_of(server->port()), 1, kLong).value();
  EXPECT_THAT(waiting->get("late", milliseconds(30)).error().message, HasSubstr("key late was not set within 30 ms"));
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(20));
    EXPECT_TRUE(setting->set("late", ""));
  });
  EXPECT_EQ(waiting->get("late", kLong).value(), "");
  later.join();
}

// Rank 0 would only see that somebody does not come.
TEST(Rendezvous, RankZerosLogSaysWhoWasRefusedButNotEndlessly) {
  testing::internal::CaptureStderr();
  {
    const auto server = RendezvousServer::start(options_of()).value();
    auto other_config = options_of(server->port());
    other_config.facts["config"] = "abd";
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(connect_rendezvous(other_config, 3, kLong));
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr(R"(a rank at 127.0.0.1 was refused: config differs: rank 0 has "abc", rank 3 has "abd")"));
  EXPECT_LE(std::count(log.begin(), log.end(), '\n'), 20);
}

TEST(Rendezvous, RefusesStrangersAndOtherPrograms) {
  const auto server = RendezvousServer::start(options_of()).value();
  auto wrong_token = options_of(server->port());
  wrong_token.token = "secreT";
  EXPECT_THAT(connect_rendezvous(wrong_token, 3, kLong).error().message, HasSubstr("wrong token"));
  auto other_config = options_of(server->port());
  other_config.facts["config"] = "abd";
  EXPECT_THAT(connect_rendezvous(other_config, 3, kLong).error().message,
              HasSubstr(R"(config differs: rank 0 has "abc", rank 3 has "abd")"));
  const std::string hello = encode_frame({FrameKind::kHello, {"secret", "rank=1", "version=1", "config=abc"}});
  const struct {
    std::string bytes;
    const char* answer;
  } cases[] = {
      {"GET / HTTP/1.1\r\n\r\n", "not a hadal rank"},
      {std::string("\0\0\0\0", 4), "a frame of 0 bytes"},
      {encode_frame({FrameKind::kHello, {std::string(20'000, 'x')}}), "a greeting of more than 16 KiB"},
      {std::string("\1\0\0\0\x63", 5), "kind 99"},
      {std::string("\6\0\0\0\1\xff\xff\xff\xff\0", 10), "do not fit"},
      {encode_frame({FrameKind::kSet, {"key", "value"}}), "wrong token"},
      {hello + hello, "unexpected frame"},
      {hello + encode_frame({FrameKind::kGet, {"nobody sets it", "1"}}) + hello, "unexpected frame"},
      {hello + encode_frame({FrameKind::kSet, {std::string(257, 'k'), ""}}), "a key of at most 256"},
      {hello + encode_frame({FrameKind::kSet, {"k", std::string(65537, 'v')}}), "at most 65536 bytes"},
      {hello + encode_frame({FrameKind::kGet, {"k", "-1"}}), "milliseconds"},
      {hello + encode_frame({FrameKind::kGet, {"k", "99999999999999999999"}}), "milliseconds"},
  };
  for (const auto& test : cases) EXPECT_THAT(talk(server->port(), test.bytes), HasSubstr(test.answer));
  EXPECT_TRUE(connect_rendezvous(options_of(server->port()), 1, kLong)) << "and lives on";
}

// What a server of the test receives next.
Frame frame_from(int fd) {
  std::string bytes;
  for (;;) {
    if (auto frame = take_frame(bytes).value()) return *frame;
    char byte;
    if (recv(fd, &byte, 1, 0) != 1) return {FrameKind::kRefusal, {"the client has gone"}};
    bytes.push_back(byte);
  }
}

TEST(Rendezvous, ALateAnswerIsNotTakenForTheNext) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof where;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&where), &length), 0);
  std::promise<void> given_up;
  std::thread slow_server([&] {
    const int fd = accept(listener, nullptr, nullptr);
    const auto answer = [&](const Frame& frame) {
      const std::string bytes = encode_frame(frame);
      EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    };
    frame_from(fd);
    answer({FrameKind::kOk, {}});
    EXPECT_EQ(frame_from(fd).strings[0], "first");
    given_up.get_future().wait();
    answer({FrameKind::kValue, {"the first's"}});
    for (Frame question = frame_from(fd); question.kind == FrameKind::kGet; question = frame_from(fd)) {
      answer({FrameKind::kValue, {question.strings[0] + "'s"}});
    }
    close(fd);
  });
  auto options = options_of(ntohs(where.sin_port));
  options.answer_time = milliseconds(100);
  auto store = connect_rendezvous(options, 1, kLong).value();
  EXPECT_THAT(store->get("first", milliseconds(0)).error().message, HasSubstr("does not answer"));
  given_up.set_value();
  EXPECT_EQ(store->get("second", kLong).value(), "second's");
  EXPECT_EQ(store->get("third", kLong).value(), "third's");
  store.reset();
  slow_server.join();
  close(listener);
}

TEST(Rendezvous, StrangersDoNotKeepRanksOut) {
  const auto server = RendezvousServer::start(options_of()).value();
  std::vector<int> silent;
  for (int i = 0; i < 300; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in where{.sin_family = AF_INET, .sin_port = htons(server->port()), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
    silent.push_back(fd);
  }
  EXPECT_TRUE(connect_rendezvous(options_of(server->port()), 1, kLong));
  char byte;
  EXPECT_EQ(recv(silent[0], &byte, 1, 0), 0) << "the oldest ones are gone";
  for (const int fd : silent) close(fd);
}

TEST(Rendezvous, ListensOnOneAddressOnly) {
  for (const char* everywhere : {"", "0.0.0.0", "::"}) {
    auto options = options_of();
    options.address = everywhere;
    EXPECT_THAT(RendezvousServer::start(options).error().message, HasSubstr("not opened on all interfaces"));
  }
}

TEST(Rendezvous, CountsARankBeforeItIsToldSo) {
  const auto server = RendezvousServer::start(options_of()).value();
  std::vector<std::unique_ptr<KeyValueStore>> ranks;
  for (int i = 0; i < 100; ++i) {
    ranks.push_back(connect_rendezvous(options_of(server->port()), i, milliseconds(60'000)).value());
    ASSERT_FALSE(server->wait_for_departures(i, milliseconds(0))) << i;
  }
}

TEST(Rendezvous, WaitsForRanksToLeave) {
  const auto server = RendezvousServer::start(options_of()).value();
  const auto first = connect_rendezvous(options_of(server->port()), 0, milliseconds(10'000)).value();
  auto second = connect_rendezvous(options_of(server->port()), 1, milliseconds(10'000)).value();
  EXPECT_FALSE(server->wait_for_departures(1, milliseconds(50)));
  EXPECT_TRUE(server->wait_for_departures(2, milliseconds(0)));
  second.reset();
  EXPECT_TRUE(server->wait_for_departures(1, milliseconds(60'000)));
}

TEST(Rendezvous, SaysWhyThereIsNoConnection) {
  uint16_t port = 0;
  {
    const auto server = RendezvousServer::start(options_of()).value();
    port = server->port();
    EXPECT_THAT(RendezvousServer::start(options_of(port)).error().message, HasSubstr("cannot listen for ranks on"));
  }
  auto elsewhere = options_of();
  elsewhere.address = "192.0.2.1";  // for documentation, so nobody's
  EXPECT_THAT(RendezvousServer::start(elsewhere).error().message, HasSubstr("is this another node?"));
  EXPECT_THAT(connect_rendezvous(options_of(port), 1, milliseconds(120)).error().message,
              HasSubstr("nothing listens there: is rank 0 running"));
  auto unknown = options_of(port);
  unknown.address = "no-such-host.invalid";
  EXPECT_THAT(connect_rendezvous(unknown, 1, milliseconds(50)).error().message, HasSubstr("the name is not known"));
}

TEST(RendezvousFrame, SurvivesEveryCut) {
  const Frame frame{FrameKind::kSet, {"key", std::string("a\0b", 3), ""}};
  const std::string bytes = encode_frame(frame);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    std::string stream = bytes.substr(0, cut);
    const auto early = take_frame(stream).value();
    EXPECT_EQ(early.has_value(), cut == bytes.size());
    if (early) continue;
    stream += bytes.substr(cut) + "rest";
    EXPECT_EQ(take_frame(stream).value()->strings, frame.strings);
    EXPECT_EQ(stream, "rest");
  }
}

}  // namespace
}  // namespace hadal
