#include "server/tls_test_support.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <stdexcept>

namespace hadal {
namespace {

std::string take_bytes(BIO* bio) {
  std::string bytes(BIO_ctrl_pending(bio), '\0');
  if (!bytes.empty()) BIO_read(bio, bytes.data(), static_cast<int>(bytes.size()));
  return bytes;
}

EVP_PKEY* make_key() {
  EVP_PKEY* key = nullptr;
  EVP_PKEY_CTX* context = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, nullptr);
  const bool made = EVP_PKEY_keygen_init(context) == 1 &&
                    EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1) == 1 &&
                    EVP_PKEY_keygen(context, &key) == 1;
  EVP_PKEY_CTX_free(context);
  if (!made) throw std::runtime_error("cannot make a key");
  return key;
}

}  // namespace

TestCertificate make_test_certificate(const std::string& host) {
  EVP_PKEY* key = make_key();
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(host.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_sign(certificate, key, EVP_sha256());
  BIO* text = BIO_new(BIO_s_mem());
  TestCertificate result;
  PEM_write_bio_X509(text, certificate);
  result.certificate_pem = take_bytes(text);
  PEM_write_bio_PrivateKey(text, key, nullptr, nullptr, 0, nullptr, nullptr);
  result.key_pem = take_bytes(text);
  BIO_free(text);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return result;
}

struct TestTlsClient::Impl {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* session = nullptr;
  BIO* input = BIO_new(BIO_s_mem());
  BIO* output = BIO_new(BIO_s_mem());

  void use(const TestCertificate& own) {
    BIO* text = BIO_new_mem_buf(own.certificate_pem.data(), static_cast<int>(own.certificate_pem.size()));
    X509* certificate = PEM_read_bio_X509(text, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context, certificate);
    X509_free(certificate);
    BIO_free(text);
    text = BIO_new_mem_buf(own.key_pem.data(), static_cast<int>(own.key_pem.size()));
    EVP_PKEY* key = PEM_read_bio_PrivateKey(text, nullptr, nullptr, nullptr);
    SSL_CTX_use_PrivateKey(context, key);
    EVP_PKEY_free(key);
    BIO_free(text);
  }
};

TestTlsClient::TestTlsClient(const TestCertificate& own, int max_version) : impl_(std::make_unique<Impl>()) {
  if (!own.key_pem.empty()) impl_->use(own);
  if (max_version != 0) {
    SSL_CTX_set_security_level(impl_->context, 0);
    SSL_CTX_set_min_proto_version(impl_->context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(impl_->context, max_version);
  }
  static constexpr unsigned char kOffered[] = "\x02h2\x08http/1.1";
  SSL_CTX_set_alpn_protos(impl_->context, kOffered, sizeof kOffered - 1);
  impl_->session = SSL_new(impl_->context);
  SSL_set_bio(impl_->session, impl_->input, impl_->output);
  SSL_set_connect_state(impl_->session);
}

TestTlsClient::~TestTlsClient() {
  SSL_free(impl_->session);
  SSL_CTX_free(impl_->context);
}

void TestTlsClient::write(const std::string& plain) { unsent_ += plain; }

void TestTlsClient::feed(const std::string& bytes) {
  if (!bytes.empty()) BIO_write(impl_->input, bytes.data(), static_cast<int>(bytes.size()));
}

void TestTlsClient::advance() {
  ERR_clear_error();
  char buffer[16384];
  int size;
  while ((size = SSL_read(impl_->session, buffer, sizeof buffer)) > 0)
    received_.append(buffer, static_cast<size_t>(size));
  const int reason = SSL_get_error(impl_->session, size);
  if (!unsent_.empty() && SSL_is_init_finished(impl_->session) != 0) {
    SSL_write(impl_->session, unsent_.data(), static_cast<int>(unsent_.size()));
    unsent_.clear();
  }
  ended_ = ended_ || reason == SSL_ERROR_ZERO_RETURN;
  failed_ = failed_ || reason == SSL_ERROR_SSL;
  ERR_clear_error();
}

std::string TestTlsClient::take_output() { return take_bytes(impl_->output); }

void TestTlsClient::close() {
  SSL_shutdown(impl_->session);
  ERR_clear_error();
}

std::string TestTlsClient::protocol() const {
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(impl_->session, &name, &size);
  return std::string(reinterpret_cast<const char*>(name), size);
}

}  // namespace hadal
