//! TLS identities and pins: Ed25519 keys as raw public keys (RFC 7250) in TLS 1.3. All configuration of
//! TLS stands here.
//!
//! There are no certificates and no names: who the other side is, is its key. Sessions are never resumed and
//! no data is sent early, so every connection proves its keys anew.

pub mod records;

use crate::control;
use crate::hash::{HexError, Sha256Hash};
use crate::peer_wire;
use ::aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Length in bytes of the secret that an identity is made from.
pub const SEED_LENGTH: usize = 32;

/// An Ed25519 key in PKCS#8 (RFC 8410) before its 32 secret bytes.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// An Ed25519 key as SubjectPublicKeyInfo (RFC 8410) before its 32 bytes.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// An Ed25519 public key: the identity of a client or of a deployment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl PublicKey {
    /// The key as SubjectPublicKeyInfo, which is what TLS carries.
    pub fn to_spki(self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// Reads SubjectPublicKeyInfo; `None` for anything but an Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(Self)
    }

    /// Whether the holder of this key signed `message` (RFC 8032).
    pub fn verify(self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, &signature.0).is_ok()
    }

    /// What people compare and pin: SHA-256 of the SubjectPublicKeyInfo.
    pub fn fingerprint(self) -> Fingerprint {
        Fingerprint(Sha256Hash::of(&self.to_spki()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", Sha256Hash(self.0))
    }
}

/// The fingerprint of a public key, written `sha256:<64 hexadecimal digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub Sha256Hash);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        text.strip_prefix("sha256:").unwrap_or_default().parse().map(Self)
    }
}

/// An Ed25519 signature (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(#[serde(with = "serde_bytes")] [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(…)")
    }
}

/// A private key with its public half.
#[derive(Clone)]
pub struct Identity {
    public: PublicKey,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Makes the identity of a seed that the caller drew at random or read from its key file.
    ///
    /// # Errors
    /// When the cryptographic library refuses the key.
    pub fn from_seed(seed: &[u8; SEED_LENGTH]) -> Result<Self, Error> {
        let pkcs8 = Zeroizing::new([&PKCS8_PREFIX[..], seed].concat());
        let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))?;
        let spki = key.public_key().ok_or(Error::General("the key has no public half".into()))?;
        let public = PublicKey::from_spki(&spki).ok_or(Error::General("the key is not Ed25519".into()))?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], key);
        Ok(Self { public, key: Arc::new(certified) })
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs a message. What is signed begins with words of its own kind, so that it can be taken for nothing else.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<Signature, Error> {
        let signer = self.key.key.choose_scheme(&[SignatureScheme::ED25519]);
        let signature = signer.ok_or(Error::General("the key is not Ed25519".into()))?.sign(message)?;
        let length = |bytes: Vec<u8>| Error::General(format!("a signature of {} bytes", bytes.len()));
        signature.try_into().map(Signature).map_err(length)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.public)
    }
}

/// The tracker's side of control connections: every client must prove a key.
///
/// # Errors
/// When the cryptographic library refuses the configuration.
pub fn control_server_config(identity: &Identity) -> Result<ServerConfig, Error> {
    server_config(identity, control::ALPN)
}

/// The client's side of control connections. With `pin` the handshake fails for any other key; without, the
/// caller compares [`peer_key`] before it sends anything.
///
/// # Errors
/// When the cryptographic library refuses the configuration.
pub fn control_client_config(identity: &Identity, pin: Option<Fingerprint>) -> Result<ClientConfig, Error> {
    client_config(identity, pin, control::ALPN)
}

/// The accepting side between members; its keys go to [`records`] after the handshake. The caller checks that [`peer_wire::ALPN`] was agreed on.
///
/// # Errors
/// When the cryptographic library refuses the configuration.
pub fn peer_server_config(identity: &Identity) -> Result<ServerConfig, Error> {
    let mut config = server_config(identity, peer_wire::ALPN)?;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// The dialling side between members; its keys go to [`records`] after the handshake. The caller compares [`peer_key`] with the key that it dialled before it
/// sends anything, and checks that [`peer_wire::ALPN`] was agreed on.
///
/// # Errors
/// When the cryptographic library refuses the configuration.
pub fn peer_client_config(identity: &Identity) -> Result<ClientConfig, Error> {
    let mut config = client_config(identity, None, peer_wire::ALPN)?;
    config.enable_secret_extraction = true;
    Ok(config)
}

fn server_config(identity: &Identity, alpn: &[u8]) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyKey::default()))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.key.clone())));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(identity: &Identity, pin: Option<Fingerprint>, alpn: &[u8]) -> Result<ClientConfig, Error> {
    let verifier = AnyKey { pin, ..AnyKey::default() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.key.clone())));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// The name that rustls asks for; it is neither sent nor compared.
pub fn unnamed_server() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// The key that the other side of a finished handshake proved.
pub fn peer_key(connection: &rustls::CommonState) -> Option<PublicKey> {
    PublicKey::from_spki(connection.peer_certificates()?.first()?)
}

/// Whether a handshake failed because the tracker's key is not the pinned one.
pub fn is_key_mismatch(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    // AES-128-GCM first: the fastest where the processor has AES; ChaCha20 for those without.
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// Accepts any Ed25519 key that the other side proves to hold, or only the pinned one.
#[derive(Debug)]
struct AnyKey {
    pin: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl Default for AnyKey {
    fn default() -> Self {
        Self { pin: None, provider: provider() }
    }
}

impl AnyKey {
    fn check_key(&self, spki: &CertificateDer<'_>) -> Result<(), Error> {
        let key = PublicKey::from_spki(spki).ok_or(CertificateError::BadEncoding)?;
        if self.pin.is_some_and(|pin| pin != key.fingerprint()) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(spki.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_key(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_key(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConnection};

    pub(super) fn identity(byte: u8) -> Identity {
        Identity::from_seed(&[byte; SEED_LENGTH]).unwrap()
    }

    /// Runs a handshake in memory.
    pub(super) fn handshake(
        client: ClientConfig,
        server: ServerConfig,
    ) -> Result<(ClientConnection, ServerConnection), Error> {
        let mut client = ClientConnection::new(Arc::new(client), unnamed_server())?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok((client, server))
    }

    #[test]
    fn both_sides_learn_the_proven_key_of_the_other() {
        let (tracker, member) = (identity(1), identity(2));
        let config = control_client_config(&member, Some(tracker.public().fingerprint())).unwrap();
        let (client, server) = handshake(config, control_server_config(&tracker).unwrap()).unwrap();
        assert_eq!(peer_key(&client), Some(tracker.public()));
        assert_eq!(peer_key(&server), Some(member.public()));
    }

    #[test]
    fn another_key_than_the_pinned_one_is_refused() {
        let config = control_client_config(&identity(2), Some(identity(3).public().fingerprint())).unwrap();
        let error = handshake(config, control_server_config(&identity(1)).unwrap()).err().unwrap();
        assert!(is_key_mismatch(&error), "{error}");
    }

    #[test]
    fn a_client_without_a_key_is_refused() {
        let mut config = control_client_config(&identity(2), None).unwrap();
        config.client_auth_cert_resolver = Arc::new(NoKey);
        assert!(handshake(config, control_server_config(&identity(1)).unwrap()).is_err());
    }

    #[derive(Debug)]
    struct NoKey;

    impl rustls::client::ResolvesClientCert for NoKey {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }

        fn only_raw_public_keys(&self) -> bool {
            true
        }

        fn has_certs(&self) -> bool {
            false
        }
    }

    #[test]
    fn members_prove_their_keys_to_each_other() {
        let (dialler, acceptor) = (identity(1), identity(2));
        let configs = (peer_client_config(&dialler).unwrap(), peer_server_config(&acceptor).unwrap());
        let (client, server) = handshake(configs.0, configs.1).unwrap();
        assert_eq!((peer_key(&client), peer_key(&server)), (Some(acceptor.public()), Some(dialler.public())));
        assert_eq!((client.alpn_protocol(), server.alpn_protocol()), (Some(peer_wire::ALPN), Some(peer_wire::ALPN)));
    }

    #[test]
    fn a_control_connection_cannot_be_passed_off_as_a_peers() {
        let configs = (control_client_config(&identity(1), None).unwrap(), peer_server_config(&identity(2)).unwrap());
        assert!(handshake(configs.0, configs.1).is_err());
    }

    #[test]
    fn a_signature_fits_its_message_and_its_key_alone() {
        let signature = identity(1).sign(b"message").unwrap();
        assert!(identity(1).public().verify(b"message", &signature));
        assert!(!identity(1).public().verify(b"massage", &signature));
        assert!(!identity(2).public().verify(b"message", &signature));
    }

    #[test]
    fn fingerprints_round_trip_and_identities_show_no_secret() {
        let identity = identity(7);
        let text = identity.public().fingerprint().to_string();
        assert_eq!(text.parse(), Ok(identity.public().fingerprint()));
        assert!("sha256:00".parse::<Fingerprint>().is_err());
        assert!(!format!("{identity:?}").contains("0707"));
    }
}
