#include "server/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <climits>
#include <filesystem>

namespace hadal {
namespace {

constexpr size_t kMaxRecordBytes = 16384;  // of plain text

// The oldest error is the cause, the others are what callers made of it.
std::string take_library_error() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unexpected end";
  const char* reason = ERR_reason_error_string(code);
  return reason == nullptr ? fmt::format("OpenSSL error {:#x}", code) : reason;
}

Error file_error(const char* what, const std::string& file) {
  const std::string reason = take_library_error();
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("cannot use {} {}: {}. A PEM file is expected", what, file, reason)};
}

Status expect_readable(const char* what, const std::string& file) {
  std::error_code error;
  if (std::filesystem::is_regular_file(file, error)) return {};
  return make_error(ErrorCode::kInvalidArgument, "cannot use {} {}: {}", what, file,
                    error ? error.message() : "not a file");
}

// A server has nobody to ask: a protected key fails to load.
int no_passphrase(char*, int, int, void*) { return 0; }

// Clients that offer protocols by name get HTTP/1.1 if it is among them, else no choice.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                    unsigned int offered_size, void*) {
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kHttp11, sizeof kHttp11 - 1, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
struct FreeSession {
  void operator()(SSL* session) const { SSL_free(session); }
};

Status use_certificate(SSL_CTX* context, const TlsOptions& options) {
  HADAL_RETURN_IF_ERROR(expect_readable("TLS certificate", options.certificate_file));
  if (SSL_CTX_use_certificate_chain_file(context, options.certificate_file.c_str()) != 1) {
    return tl::unexpected(file_error("TLS certificate", options.certificate_file));
  }
  const std::string& key_file = options.key_file.empty() ? options.certificate_file : options.key_file;
  HADAL_RETURN_IF_ERROR(expect_readable("TLS key", key_file));
  if (SSL_CTX_use_PrivateKey_file(context, key_file.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(context) != 1) {
    return tl::unexpected(file_error("TLS key", key_file));
  }
  return {};
}

Status use_client_authority(SSL_CTX* context, const TlsOptions& options) {
  if (options.client_ca_file.empty()) {
    if (!options.require_client_certificate) return {};
    return make_error(ErrorCode::kInvalidArgument,
                      "client certificates are required, but no file says which authorities to trust");
  }
  HADAL_RETURN_IF_ERROR(expect_readable("TLS client authorities", options.client_ca_file));
  STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(options.client_ca_file.c_str());
  if (names == nullptr || SSL_CTX_load_verify_locations(context, options.client_ca_file.c_str(), nullptr) != 1) {
    sk_X509_NAME_pop_free(names, X509_NAME_free);
    return tl::unexpected(file_error("TLS client authorities", options.client_ca_file));
  }
  SSL_CTX_set_client_CA_list(context, names);  // takes it over
  SSL_CTX_set_verify(
      context, SSL_VERIFY_PEER | (options.require_client_certificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  // Sessions are resumed only where they were made with the same rules.
  static constexpr unsigned char kSessionContext[] = "hadal";
  SSL_CTX_set_session_id_context(context, kSessionContext, sizeof kSessionContext - 1);
  return {};
}

}  // namespace

struct TlsContext::Impl {
  std::unique_ptr<SSL_CTX, FreeContext> context;
};

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;

Expected<std::shared_ptr<const TlsContext>> TlsContext::load(const TlsOptions& options) {
  ERR_clear_error();
  auto impl = std::make_unique<Impl>();
  impl->context.reset(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* context = impl->context.get();
  if (context == nullptr) return make_error(ErrorCode::kInternal, "no TLS: {}", take_library_error());
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);  // thousands of connections are idle
  SSL_CTX_set_default_passwd_cb(context, no_passphrase);
  SSL_CTX_set_alpn_select_cb(context, choose_protocol, nullptr);
  HADAL_RETURN_IF_ERROR(use_certificate(context, options));
  HADAL_RETURN_IF_ERROR(use_client_authority(context, options));
  if (!options.ciphers.empty() && SSL_CTX_set_cipher_list(context, options.ciphers.c_str()) != 1) {
    return make_error(ErrorCode::kInvalidArgument, "TLS ciphers \"{}\": {}", options.ciphers, take_library_error());
  }
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(impl)));
}

struct TlsSession::Impl {
  std::shared_ptr<const TlsContext> context;
  std::unique_ptr<SSL, FreeSession> session;
  BIO* input = nullptr;   // owned by session
  BIO* output = nullptr;  // owned by session
  bool closed = false;
};

TlsSession::TlsSession(std::shared_ptr<const TlsContext> context) : impl_(std::make_unique<Impl>()) {
  impl_->context = std::move(context);
  impl_->session.reset(SSL_new(impl_->context->impl_->context.get()));
  impl_->input = BIO_new(BIO_s_mem());
  impl_->output = BIO_new(BIO_s_mem());
  if (impl_->session == nullptr || impl_->input == nullptr || impl_->output == nullptr) throw std::bad_alloc();
  SSL_set_bio(impl_->session.get(), impl_->input, impl_->output);
  SSL_set_accept_state(impl_->session.get());
}
TlsSession::~TlsSession() = default;

void TlsSession::fail() {
  state_ = State::kFailed;
  const unsigned long code = ERR_peek_error();
  is_plain_http_ = ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST;
  error_ = take_library_error();
}

TlsSession::State TlsSession::feed(std::string_view bytes, std::string* plain) {
  if (state_ == State::kFailed || state_ == State::kPeerDone) return state_;
  ERR_clear_error();
  while (!bytes.empty()) {
    const int size = static_cast<int>(std::min(bytes.size(), size_t{INT_MAX}));
    const int taken = BIO_write(impl_->input, bytes.data(), size);
    if (taken <= 0) throw std::bad_alloc();
    bytes.remove_prefix(static_cast<size_t>(taken));
  }
  SSL* session = impl_->session.get();
  char buffer[kMaxRecordBytes];
  while (true) {
    const int size = SSL_read(session, buffer, sizeof buffer);
    if (SSL_is_init_finished(session) != 0) state_ = State::kOpen;
    if (size > 0) {
      plain->append(buffer, static_cast<size_t>(size));
      continue;
    }
    switch (SSL_get_error(session, size)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE:
        break;
      case SSL_ERROR_ZERO_RETURN:
        state_ = State::kPeerDone;
        break;
      default:
        fail();
    }
    return state_;
  }
}

void TlsSession::write(std::string_view plain) {
  const bool is_open = state_ == State::kOpen || state_ == State::kPeerDone;
  if (!is_open || impl_->closed) return;
  ERR_clear_error();
  while (!plain.empty()) {
    const int size = static_cast<int>(std::min(plain.size(), kMaxRecordBytes));
    const int taken = SSL_write(impl_->session.get(), plain.data(), size);
    if (taken <= 0) return fail();  // memory takes everything: only a broken session refuses
    plain.remove_prefix(static_cast<size_t>(taken));
  }
}

void TlsSession::close() {
  const bool is_open = state_ == State::kOpen || state_ == State::kPeerDone;
  if (!is_open || impl_->closed) return;
  impl_->closed = true;
  ERR_clear_error();
  SSL_shutdown(impl_->session.get());
  ERR_clear_error();
}

std::string TlsSession::take_output() {
  std::string bytes(BIO_ctrl_pending(impl_->output), '\0');
  const int taken = bytes.empty() ? 0 : BIO_read(impl_->output, bytes.data(), static_cast<int>(bytes.size()));
  bytes.resize(static_cast<size_t>(std::max(taken, 0)));
  return bytes;
}

}  // namespace hadal
