#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <filesystem>

#include "net/http_client.h"
#include "net/testing/scripted_server.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

// A key and a certificate for "localhost" that it signs itself; the certificate also as a PEM file.
class Certificate {
 public:
  Certificate() {
    EVP_PKEY_CTX* maker = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, nullptr);
    EVP_PKEY_keygen_init(maker);
    EVP_PKEY_CTX_set_ec_paramgen_curve_nid(maker, NID_X9_62_prime256v1);
    EVP_PKEY_keygen(maker, &key);
    EVP_PKEY_CTX_free(maker);
    X509_set_version(x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_set_pubkey(x509, key);
    X509_NAME* name = X509_get_subject_name(x509);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
    X509_set_issuer_name(x509, name);
    X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost");
    X509_add_ext(x509, names, -1);
    X509_EXTENSION_free(names);
    EXPECT_GT(X509_sign(x509, key, EVP_sha256()), 0);
    FILE* out = std::fopen(file.c_str(), "w");
    EXPECT_EQ(PEM_write_X509(out, x509), 1);
    std::fclose(out);
  }
  ~Certificate() {
    EVP_PKEY_free(key);
    X509_free(x509);
    std::filesystem::remove(file);
  }

  EVP_PKEY* key = nullptr;
  X509* x509 = X509_new();
  const std::string file =
      std::filesystem::temp_directory_path() / ("hadal_tls_" + std::to_string(::getpid()) + ".pem");
};

// One TLS connection: answers after the first bytes. `say_goodbye`: ends with close_notify, as TLS wants.
void serve_tls(int fd, const Certificate& certificate, std::string_view answer, bool say_goodbye) {
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  SSL_CTX_use_certificate(context, certificate.x509);
  SSL_CTX_use_PrivateKey(context, certificate.key);
  SSL* ssl = SSL_new(context);
  SSL_set_fd(ssl, fd);
  char buffer[4096];
  if (SSL_accept(ssl) == 1 && SSL_read(ssl, buffer, sizeof(buffer)) > 0) {
    SSL_write(ssl, answer.data(), static_cast<int>(answer.size()));
    if (say_goodbye) SSL_shutdown(ssl);
  }
  SSL_free(ssl);
  SSL_CTX_free(context);
}

std::string at(const ScriptedServer& server, const std::string& host) {
  return "https://" + host + server.url.substr(server.url.rfind(':')) + "/x";
}

TEST(Tls, TheCertificateMustBeTrustedAndNameTheHost) {
  const Certificate certificate;
  ScriptedServer server([&](ScriptedServer&, int fd) {
    serve_tls(fd, certificate, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true);
  });
  HttpClient strict, trusting({.ca_file = certificate.file}), careless({.verify_tls = false});
  const auto good = trusting.call({.url = at(server, "localhost")});
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_EQ(good->body, "ok");
  const auto unknown = strict.call({.url = at(server, "localhost")});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(unknown.error().message, HasSubstr("TLS: "));
  const auto wrong_name = trusting.call({.url = at(server, "127.0.0.1")});
  ASSERT_FALSE(wrong_name);
  EXPECT_THAT(wrong_name.error().message, HasSubstr("TLS: "));
  const auto any = careless.call({.url = at(server, "127.0.0.1")});
  ASSERT_TRUE(any) << any.error().message;
  HttpClient no_file({.ca_file = "/nowhere/ca.pem"});
  EXPECT_EQ(no_file.call({.url = at(server, "localhost")}).error().code, ErrorCode::kInvalidArgument);
}

// Only close_notify proves that a body without a length is whole; a length proves it by itself.
TEST(Tls, ACutConnectionIsNotTheEndOfABody) {
  const Certificate certificate;
  bool say_goodbye = false;
  std::string answer = "HTTP/1.1 200 OK\r\n\r\nok";
  ScriptedServer server([&](ScriptedServer&, int fd) { serve_tls(fd, certificate, answer, say_goodbye); });
  HttpClient client({.ca_file = certificate.file});
  EXPECT_THAT(client.call({.url = at(server, "localhost")}).error().message, HasSubstr("the connection broke"));
  say_goodbye = true;
  EXPECT_EQ(client.call({.url = at(server, "localhost")})->body, "ok");
  say_goodbye = false;
  answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  EXPECT_EQ(client.call({.url = at(server, "localhost")})->body, "ok");
}

TEST(Tls, APlainServerIsAnError) {
  ScriptedServer server([](ScriptedServer&, int fd) { ScriptedServer::send(fd, "HTTP/1.1 400 Bad\r\n\r\n"); });
  EXPECT_THAT(http_call({.url = at(server, "localhost")}).error().message, HasSubstr("TLS: "));
}

}  // namespace
}  // namespace hadal
