//! Records of an established TLS 1.3 connection (RFC 8446 §5), in memory.
//!
//! rustls does the handshake and hands out the keys; its own ciphers seal and open each record here. What this
//! spares is three copies of every byte and the lock between the two directions: a connection's halves have
//! nothing in common. Only application data and the other side's goodbye are understood; anything else, a key
//! update among it, ends the connection.

use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
    Tls13AeadAlgorithm,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, ProtocolVersion, SupportedCipherSuite};
use std::fmt;
use std::ops::Range;

/// Most plain bytes in one record.
pub const MAX_PLAIN_LENGTH: usize = 16 * 1024;
/// Most bytes of one record on the wire, its header included.
pub const MAX_RECORD_LENGTH: usize = HEADER_LENGTH + MAX_CIPHER_LENGTH;

/// Length in bytes of what comes before each record: its kind, its version and its length in two bytes.
pub const HEADER_LENGTH: usize = 5;
/// RFC 8446 §5.2.
const MAX_CIPHER_LENGTH: usize = MAX_PLAIN_LENGTH + 256;
/// Most records under one key: what AES-GCM is good for (RFC 8446 §5.5), 256 GiB. A new connection has new keys.
const MAX_RECORDS: u64 = 1 << 24;
/// What every record says of its version on the wire (RFC 8446 §5.1).
const WIRE_VERSION: ProtocolVersion = ProtocolVersion::TLSv1_2;
/// The alert that ends a connection in good order, at any level.
const CLOSE_NOTIFY: u8 = 0;

/// Why a connection's records cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A record announces more than any record may have.
    #[error("a TLS record of {0} bytes")]
    TooLong(usize),
    /// A record of a kind that has no place between members.
    #[error("an unexpected TLS record: {0:?}")]
    Unexpected(ContentType),
    /// The other side ended the connection for a reason.
    #[error("TLS alert {0}")]
    Alert(u8),
    /// The key has sealed as many records as it may.
    #[error("the connection's keys are used up")]
    UsedUp,
    /// A record was altered, or the cipher refuses.
    #[error("TLS: {0}")]
    Cipher(#[from] Error),
}

/// Seals what we send.
pub struct RecordSealer {
    cipher: Box<dyn MessageEncrypter>,
    sequence: u64,
}

/// Opens what we receive.
pub struct RecordOpener {
    cipher: Box<dyn MessageDecrypter>,
    sequence: u64,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Plain bytes, at this place in the buffer.
    Data(Range<usize>),
    /// The other side's goodbye.
    End,
}

/// The two halves of a connection whose handshake is over and which holds no bytes back.
///
/// # Errors
/// When the connection has another cipher than ours.
pub fn halves(secrets: ExtractedSecrets) -> Result<(RecordSealer, RecordOpener), Error> {
    let ExtractedSecrets { tx: (tx_sequence, tx), rx: (rx_sequence, rx) } = secrets;
    let (algorithm, key, iv) = cipher_of(tx)?;
    let sealer = RecordSealer { cipher: algorithm.encrypter(key, iv), sequence: tx_sequence };
    let (algorithm, key, iv) = cipher_of(rx)?;
    let opener = RecordOpener { cipher: algorithm.decrypter(key, iv), sequence: rx_sequence };
    Ok((sealer, opener))
}

fn cipher_of(secrets: ConnectionTrafficSecrets) -> Result<(&'static dyn Tls13AeadAlgorithm, AeadKey, Iv), Error> {
    let (suite, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (TLS13_AES_128_GCM_SHA256, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (TLS13_CHACHA20_POLY1305_SHA256, key, iv),
        _ => return Err(Error::General("a cipher that is not offered".into())),
    };
    match suite {
        SupportedCipherSuite::Tls13(suite) => Ok((suite.aead_alg, key, iv)),
        #[allow(unreachable_patterns, reason = "rustls may be built with TLS 1.2 by another package")]
        _ => Err(Error::General("not a cipher of TLS 1.3".into())),
    }
}

impl RecordSealer {
    /// One record with these plain bytes, at most [`MAX_PLAIN_LENGTH`] in all.
    ///
    /// # Errors
    /// When the key is used up or the cipher refuses.
    pub fn seal(&mut self, plain: &[&[u8]]) -> Result<Vec<u8>, RecordError> {
        let payload = OutboundChunks::new(plain);
        let message = OutboundPlainMessage { typ: ContentType::ApplicationData, version: WIRE_VERSION, payload };
        let record = self.cipher.encrypt(message, next(&mut self.sequence)?)?;
        Ok(record.encode())
    }
}

impl RecordOpener {
    /// Opens the record that `bytes` begins with, in place; its length on the wire and what it holds. `None` when it
    /// is not all there.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<Option<(usize, Opened)>, RecordError> {
        let Some(([kind, _, _, high, low], body)) = bytes.split_first_chunk_mut::<HEADER_LENGTH>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > MAX_CIPHER_LENGTH {
            return Err(RecordError::TooLong(length));
        }
        let kind = ContentType::from(*kind);
        if kind != ContentType::ApplicationData {
            return Err(RecordError::Unexpected(kind));
        }
        let Some(cipher_bytes) = body.get_mut(..length) else { return Ok(None) };
        let message = InboundOpaqueMessage::new(kind, WIRE_VERSION, cipher_bytes);
        let plain = self.cipher.decrypt(message, next(&mut self.sequence)?)?;
        let opened = match (plain.typ, plain.payload) {
            (ContentType::ApplicationData, payload) => Opened::Data(HEADER_LENGTH..HEADER_LENGTH + payload.len()),
            (ContentType::Alert, [_, CLOSE_NOTIFY]) => Opened::End,
            (ContentType::Alert, [_, alert]) => return Err(RecordError::Alert(*alert)),
            (kind, _) => return Err(RecordError::Unexpected(kind)),
        };
        Ok(Some((HEADER_LENGTH + length, opened)))
    }
}

fn next(sequence: &mut u64) -> Result<u64, RecordError> {
    let number = *sequence;
    if number >= MAX_RECORDS {
        return Err(RecordError::UsedUp);
    }
    *sequence += 1;
    Ok(number)
}

impl fmt::Debug for RecordSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordSealer({} records)", self.sequence)
    }
}

impl fmt::Debug for RecordOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordOpener({} records)", self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::{handshake, identity};
    use crate::tls::{peer_client_config, peer_server_config};
    use proptest::prelude::*;
    use std::io::{Read, Write};

    type Half = (RecordSealer, RecordOpener);

    fn pair() -> (Half, Half) {
        let configs = (peer_client_config(&identity(1)).unwrap(), peer_server_config(&identity(2)).unwrap());
        let (client, server) = handshake(configs.0, configs.1).unwrap();
        let secrets = (client.dangerous_extract_secrets().unwrap(), server.dangerous_extract_secrets().unwrap());
        (halves(secrets.0).unwrap(), halves(secrets.1).unwrap())
    }

    fn opened(opener: &mut RecordOpener, record: &mut [u8]) -> Vec<u8> {
        match opener.open(record).unwrap() {
            Some((length, Opened::Data(range))) if length == record.len() => record[range].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_directions_carry_bytes_of_any_length_in_pieces() {
        let ((mut seal, mut open), (mut seal_back, mut open_back)) = pair();
        for length in [0, 1, 13, 100, MAX_PLAIN_LENGTH] {
            let plain = vec![7; length];
            let (head, tail) = plain.split_at(length / 3);
            assert_eq!(opened(&mut open_back, &mut seal.seal(&[head, tail]).unwrap()), plain);
            assert_eq!(opened(&mut open, &mut seal_back.seal(&[&plain]).unwrap()), plain);
        }
        let longest = seal.seal(&[&[7; MAX_PLAIN_LENGTH]]).unwrap();
        assert!(longest.len() <= MAX_RECORD_LENGTH);
    }

    /// The records are those of TLS: rustls itself reads what we seal, and we open what it writes.
    #[test]
    fn rustls_understands_the_records_and_we_understand_its() {
        let configs = (peer_client_config(&identity(1)).unwrap(), peer_server_config(&identity(2)).unwrap());
        let (client, mut server) = handshake(configs.0, configs.1).unwrap();
        let (mut seal, mut open) = halves(client.dangerous_extract_secrets().unwrap()).unwrap();
        let record = seal.seal(&[b"from ", b"us"]).unwrap();
        server.read_tls(&mut record.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut text = [0; 7];
        server.reader().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"from us");
        server.writer().write_all(b"from rustls").unwrap();
        server.send_close_notify();
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let Some((length, Opened::Data(range))) = open.open(&mut wire).unwrap() else { panic!("no data") };
        assert_eq!(&wire[range], b"from rustls");
        assert_eq!(open.open(&mut wire[length..]).unwrap().unwrap().1, Opened::End);
    }

    #[test]
    fn a_part_of_a_record_is_waited_for() {
        let ((mut seal, _), (_, mut open)) = pair();
        let mut record = seal.seal(&[b"whole"]).unwrap();
        for length in 0..record.len() {
            assert!(open.open(&mut record[..length].to_vec()).unwrap().is_none(), "{length} bytes");
        }
        assert_eq!(opened(&mut open, &mut record), b"whole");
    }

    #[test]
    fn altered_repeated_and_reordered_records_are_refused() {
        let sealed = |n: u8| {
            let ((mut seal, _), (_, open)) = pair();
            (open, (0..n).map(|nth| seal.seal(&[&[nth]]).unwrap()).collect::<Vec<_>>())
        };
        let (mut open, mut records) = sealed(1);
        *records[0].last_mut().unwrap() ^= 1;
        assert!(matches!(open.open(&mut records[0]), Err(RecordError::Cipher(_))));
        let (mut open, mut records) = sealed(1);
        opened(&mut open, &mut records[0].clone());
        assert!(matches!(open.open(&mut records[0]), Err(RecordError::Cipher(_))), "repeated");
        let (mut open, mut records) = sealed(2);
        assert!(matches!(open.open(&mut records[1]), Err(RecordError::Cipher(_))), "out of order");
    }

    #[test]
    fn other_kinds_and_lengths_end_the_connection() {
        let (_, (_, mut open)) = pair();
        assert!(matches!(open.open(&mut [22, 3, 3, 0, 0]), Err(RecordError::Unexpected(ContentType::Handshake))));
        assert!(matches!(open.open(&mut [23, 3, 3, 255, 255]), Err(RecordError::TooLong(65535))));
    }

    #[test]
    fn keys_are_not_used_beyond_their_limit() {
        let ((mut seal, _), (_, mut open)) = pair();
        (seal.sequence, open.sequence) = (MAX_RECORDS - 1, MAX_RECORDS - 1);
        assert_eq!(opened(&mut open, &mut seal.seal(&[b"last"]).unwrap()), b"last");
        assert!(matches!(seal.seal(&[b"more"]), Err(RecordError::UsedUp)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_opener_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let (_, (_, mut open)) = pair();
            prop_assert!(!matches!(open.open(&mut bytes), Ok(Some(_))));
        }
    }
}
