//! Records of an established TLS 1.3 connection (RFC 8446 §5), in memory.
//!
//! rustls does the handshake and hands out the keys; from then on each record is sealed where it lies and opened from one
//! buffer into another, by the ciphers that rustls uses, too. What this spares is every copy of a byte that is
//! not a kernel's, and the lock between the two directions: a connection's halves have nothing in common. Only
//! application data and the other side's goodbye are understood; anything else, a key update among it, ends the
//! connection.

use aws_lc_rs::aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets};
use std::fmt;

/// Most plain bytes in one record.
pub const MAX_PLAIN_LENGTH: usize = 16 * 1024;
/// Most bytes of one record on the wire, its header included.
pub const MAX_RECORD_LENGTH: usize = HEADER_LENGTH + MAX_CIPHER_LENGTH;
/// Length in bytes of what stands before each record: its kind, its version and its length in two bytes.
pub const HEADER_LENGTH: usize = 5;
/// Length in bytes of what stands behind the plain bytes of a record of ours: their kind and the cipher's tag.
pub const TRAILER_LENGTH: usize = KIND_LENGTH + TAG_LENGTH;

const KIND_LENGTH: usize = 1;
/// That of both ciphers.
const TAG_LENGTH: usize = 16;
/// RFC 8446 §5.2.
const MAX_CIPHER_LENGTH: usize = MAX_PLAIN_LENGTH + 256;
/// Most records under one key: what AES-GCM is good for (RFC 8446 §5.5), 256 GiB. A new connection has new keys.
const MAX_RECORDS: u64 = 1 << 24;
/// What every record says of its version on the wire (RFC 8446 §5.1).
const WIRE_VERSION: [u8; 2] = [3, 3];
const APPLICATION_DATA: u8 = 23;
const ALERT: u8 = 21;
/// The alert that ends a connection in good order, at any level.
const CLOSE_NOTIFY: u8 = 0;

/// Why a connection's records cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A record announces more than any record may have, or less than it must.
    #[error("a TLS record of {0} bytes")]
    BadLength(usize),
    /// A record of a kind that has no place between members.
    #[error("an unexpected TLS record of kind {0}")]
    Unexpected(u8),
    /// The other side ended the connection for a reason.
    #[error("TLS alert {0}")]
    Alert(u8),
    /// The key has sealed as many records as it may.
    #[error("the connection's keys are used up")]
    UsedUp,
    /// A record was altered, or the cipher refuses.
    #[error("a TLS record does not open")]
    Cipher,
}

/// One direction's key, and how many records it has had.
struct Direction {
    key: LessSafeKey,
    iv: Iv,
    sequence: u64,
}

/// Seals what we send.
pub struct RecordSealer(Direction);

/// Opens what we receive.
pub struct RecordOpener(Direction);

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// So many plain bytes.
    Data(usize),
    /// The other side's goodbye.
    End,
}

/// The two halves of a connection whose handshake is over and which holds no bytes back.
///
/// # Errors
/// When the connection has another cipher than ours.
pub fn halves(secrets: ExtractedSecrets) -> Result<(RecordSealer, RecordOpener), Error> {
    let ExtractedSecrets { tx, rx } = secrets;
    Ok((RecordSealer(Direction::new(tx)?), RecordOpener(Direction::new(rx)?)))
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let bound = |algorithm, key: &AeadKey| {
            let key = UnboundKey::new(algorithm, key.as_ref());
            key.map(LessSafeKey::new).map_err(|_| Error::General("a key of another length".into()))
        };
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (bound(&AES_128_GCM, &key)?, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (bound(&CHACHA20_POLY1305, &key)?, iv),
            _ => return Err(Error::General("a cipher that is not offered".into())),
        };
        Ok(Self { key, iv, sequence })
    }

    /// The next record's nonce (RFC 8446 §5.3).
    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        if self.sequence >= MAX_RECORDS {
            return Err(RecordError::UsedUp);
        }
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.sequence.to_be_bytes());
        nonce.iter_mut().zip(self.iv.as_ref()).for_each(|(byte, pad)| *byte ^= pad);
        self.sequence += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

impl RecordSealer {
    /// Seals a record where it lies: [`HEADER_LENGTH`] bytes, at most [`MAX_PLAIN_LENGTH`] plain bytes, and
    /// [`TRAILER_LENGTH`] bytes. What is before and behind the plain bytes is written here.
    ///
    /// # Errors
    /// When the key is used up, the cipher refuses, or the length is none of a record.
    pub fn seal(&mut self, record: &mut [u8]) -> Result<(), RecordError> {
        let length = record.len();
        let cipher_length = length.saturating_sub(HEADER_LENGTH);
        let announced = u16::try_from(cipher_length).map_err(|_| RecordError::BadLength(length))?;
        if !(TRAILER_LENGTH..=MAX_PLAIN_LENGTH + TRAILER_LENGTH).contains(&cipher_length) {
            return Err(RecordError::BadLength(length));
        }
        let (header, body) = record.split_at_mut(HEADER_LENGTH);
        let (plain, trailer) = body.split_at_mut(cipher_length - TRAILER_LENGTH);
        let [high, low] = announced.to_be_bytes();
        header.copy_from_slice(&[APPLICATION_DATA, WIRE_VERSION[0], WIRE_VERSION[1], high, low]);
        let nonce = self.0.next_nonce()?;
        let sealed = self.0.key.seal_in_place_scatter(nonce, Aad::from(header), plain, &[APPLICATION_DATA], trailer);
        sealed.map_err(|_| RecordError::Cipher)
    }
}

/// The length in bytes of the record that `bytes` begins with, its header included. `None` while the header is not all
/// there.
///
/// # Errors
/// When it is no record that has a place here.
pub fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    match (kind, length) {
        (APPLICATION_DATA, TRAILER_LENGTH..=MAX_CIPHER_LENGTH) => Ok(Some(HEADER_LENGTH + length)),
        (APPLICATION_DATA, _) => Err(RecordError::BadLength(length)),
        (kind, _) => Err(RecordError::Unexpected(kind)),
    }
}

/// How much room a record needs to be opened into.
pub fn room_for(record: &[u8]) -> usize {
    record.len().saturating_sub(HEADER_LENGTH + TAG_LENGTH)
}

impl RecordOpener {
    /// Opens a whole record into the front of `room`, which has at least [`room_for`] it; what it holds.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn open(&mut self, record: &[u8], room: &mut [u8]) -> Result<Opened, RecordError> {
        let bad = || RecordError::BadLength(record.len());
        let (header, body) = record.split_at_checked(HEADER_LENGTH).ok_or_else(bad)?;
        let (cipher, tag) = body.split_at_checked(room_for(record)).ok_or_else(bad)?;
        let plain = room.get_mut(..cipher.len()).ok_or_else(bad)?;
        let nonce = self.0.next_nonce()?;
        let opened = self.0.key.open_separate_gather(nonce, Aad::from(header), cipher, tag, plain);
        opened.map_err(|_| RecordError::Cipher)?;
        // Behind the plain bytes stand their kind, which is never 0, and any number of zeros.
        let Some(length) = plain.iter().rposition(|byte| *byte != 0) else { return Err(RecordError::Unexpected(0)) };
        match (plain[length], &plain[..length]) {
            (APPLICATION_DATA, data) if data.len() <= MAX_PLAIN_LENGTH => Ok(Opened::Data(length)),
            (APPLICATION_DATA, data) => Err(RecordError::BadLength(data.len())),
            (ALERT, [_, CLOSE_NOTIFY]) => Ok(Opened::End),
            (ALERT, [_, alert]) => Err(RecordError::Alert(*alert)),
            (kind, _) => Err(RecordError::Unexpected(kind)),
        }
    }
}

impl fmt::Debug for RecordSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordSealer({} records)", self.0.sequence)
    }
}

impl fmt::Debug for RecordOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordOpener({} records)", self.0.sequence)
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

    fn sealed(sealer: &mut RecordSealer, plain: &[u8]) -> Vec<u8> {
        let mut record = [&[0; HEADER_LENGTH], plain, &[0; TRAILER_LENGTH]].concat();
        sealer.seal(&mut record).unwrap();
        record
    }

    fn open(opener: &mut RecordOpener, record: &[u8]) -> Result<(Opened, Vec<u8>), RecordError> {
        let mut room = vec![9; room_for(record)];
        opener.open(record, &mut room).map(|opened| (opened, room))
    }

    fn opened(opener: &mut RecordOpener, record: &[u8]) -> Vec<u8> {
        assert_eq!(record_length(record).unwrap(), Some(record.len()));
        match open(opener, record).unwrap() {
            (Opened::Data(length), plain) => plain[..length].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_directions_carry_bytes_of_any_length() {
        let ((mut seal, mut open), (mut seal_back, mut open_back)) = pair();
        for length in [0, 1, 13, 100, MAX_PLAIN_LENGTH] {
            let plain = vec![7; length];
            assert_eq!(opened(&mut open_back, &sealed(&mut seal, &plain)), plain);
            assert_eq!(opened(&mut open, &sealed(&mut seal_back, &plain)), plain);
        }
        assert!(sealed(&mut seal, &[7; MAX_PLAIN_LENGTH]).len() <= MAX_RECORD_LENGTH);
        for length in [0, HEADER_LENGTH + TRAILER_LENGTH - 1, HEADER_LENGTH + TRAILER_LENGTH + MAX_PLAIN_LENGTH + 1] {
            assert!(matches!(seal.seal(&mut vec![0; length]), Err(RecordError::BadLength(_))), "{length} bytes");
        }
    }

    /// Zeros at the end of what is sent are not taken for padding, and padding is not taken for what is sent.
    #[test]
    fn zeros_and_padding_are_told_apart() {
        let ((mut seal, _), (_, mut open)) = pair();
        assert_eq!(opened(&mut open, &sealed(&mut seal, &[1, 0, 0])), [1, 0, 0]);
        // As another implementation may write it: the kind, then zeros.
        let mut body = [b"text".as_slice(), &[APPLICATION_DATA, 0, 0, 0]].concat();
        let length = u8::try_from(body.len() + TAG_LENGTH).unwrap();
        let header = [APPLICATION_DATA, 3, 3, 0, length];
        let nonce = seal.0.next_nonce().unwrap();
        let tag = seal.0.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut body).unwrap();
        assert_eq!(opened(&mut open, &[&header, &body[..], tag.as_ref()].concat()), b"text");
        let mut zeros = vec![0; 4];
        let header = [APPLICATION_DATA, 3, 3, 0, 20];
        let nonce = seal.0.next_nonce().unwrap();
        let tag = seal.0.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut zeros).unwrap();
        let record = [&header, &zeros[..], tag.as_ref()].concat();
        assert!(matches!(super::tests::open(&mut open, &record), Err(RecordError::Unexpected(0))));
    }

    /// The records are those of TLS: rustls itself reads what we seal, and we open what it writes.
    #[test]
    fn rustls_understands_the_records_and_we_understand_its() {
        let configs = (peer_client_config(&identity(1)).unwrap(), peer_server_config(&identity(2)).unwrap());
        let (client, mut server) = handshake(configs.0, configs.1).unwrap();
        let (mut seal, mut open) = halves(client.dangerous_extract_secrets().unwrap()).unwrap();
        server.read_tls(&mut sealed(&mut seal, b"from us").as_slice()).unwrap();
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
        let length = record_length(&wire).unwrap().unwrap();
        assert_eq!(opened(&mut open, &wire[..length]), b"from rustls");
        assert_eq!(super::tests::open(&mut open, &wire[length..]).unwrap().0, Opened::End);
    }

    #[test]
    fn a_part_of_a_record_is_known_by_its_length() {
        let ((mut seal, _), _) = pair();
        let record = sealed(&mut seal, b"whole");
        for length in 0..record.len() {
            let expected = (length >= HEADER_LENGTH).then_some(record.len());
            assert_eq!(record_length(&record[..length]).unwrap(), expected, "{length} bytes");
        }
    }

    #[test]
    fn altered_repeated_and_reordered_records_are_refused() {
        let several = |n: u8| {
            let ((mut seal, _), (_, open)) = pair();
            (open, (0..n).map(|nth| sealed(&mut seal, &[nth])).collect::<Vec<_>>())
        };
        for place in 0..HEADER_LENGTH + 1 + TRAILER_LENGTH {
            let (mut opener, mut records) = several(1);
            records[0][place] ^= 1;
            assert!(matches!(open(&mut opener, &records[0]), Err(RecordError::Cipher)), "byte {place}");
        }
        let (mut opener, records) = several(1);
        opened(&mut opener, &records[0]);
        assert!(matches!(open(&mut opener, &records[0]), Err(RecordError::Cipher)), "repeated");
        let (mut opener, records) = several(2);
        assert!(matches!(open(&mut opener, &records[1]), Err(RecordError::Cipher)), "out of order");
    }

    #[test]
    fn other_kinds_and_lengths_end_the_connection() {
        assert!(matches!(record_length(&[22, 3, 3, 0, 40]), Err(RecordError::Unexpected(22))));
        assert!(matches!(record_length(&[23, 3, 3, 255, 255]), Err(RecordError::BadLength(65535))));
        assert!(matches!(record_length(&[23, 3, 3, 0, 16]), Err(RecordError::BadLength(16))));
    }

    #[test]
    fn keys_are_not_used_beyond_their_limit() {
        let ((mut seal, _), (_, mut open)) = pair();
        (seal.0.sequence, open.0.sequence) = (MAX_RECORDS - 1, MAX_RECORDS - 1);
        assert_eq!(opened(&mut open, &sealed(&mut seal, b"last")), b"last");
        assert!(matches!(seal.seal(&mut [0; 40]), Err(RecordError::UsedUp)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_opener_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), room in 0..600_usize) {
            let (_, (_, mut opener)) = pair();
            let _ = record_length(&bytes);
            prop_assert!(opener.open(&bytes, &mut vec![0; room]).is_err());
        }
    }
}
