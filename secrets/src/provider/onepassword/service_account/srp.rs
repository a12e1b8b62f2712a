//! The login: SRP-6a in the group of 4096 bits of RFC 3526 with generator 5 and SHA-256, with the
//! hashes of the vendor's clients.

use num_bigint::BigUint;
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::error::{Class, FetchError};

const GENERATOR: u8 = 5;
/// Bytes of the group's numbers.
const LENGTH: usize = 512;

/// Fills with randomness of the system.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), FetchError> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| FetchError::new(Class::Local, "the system gives no randomness"))
}

fn group() -> BigUint {
    let hex: String = include_str!("group16.hex").split_whitespace().collect();
    BigUint::parse_bytes(hex.as_bytes(), 16).expect("the constant is hexadecimal")
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut output = [0; 32];
    output.copy_from_slice(context.finish().as_ref());
    output
}

fn padded(number: &BigUint) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    let mut padded = vec![0; LENGTH.saturating_sub(bytes.len())];
    padded.extend_from_slice(&bytes);
    padded
}

/// A login that has begun.
pub(super) struct Exchange {
    secret: BigUint,
    public: BigUint,
}

/// What both sides know in the end.
pub(super) struct Agreed {
    /// Key of the session.
    pub(super) key: Zeroizing<[u8; 32]>,
    /// What we show.
    pub(super) proof: [u8; 32],
    /// What the server must show.
    pub(super) expected: [u8; 32],
}

/// Who logs in.
pub(super) struct Identity<'a> {
    pub(super) key_id: &'a str,
    pub(super) email: &'a str,
    pub(super) salt: &'a [u8],
    pub(super) x: &'a [u8],
}

impl Exchange {
    /// Chooses our secret number.
    pub(super) fn begin() -> Result<Self, FetchError> {
        let mut bytes = Zeroizing::new([0; 32]);
        random(&mut *bytes)?;
        let secret = BigUint::from_bytes_be(&*bytes);
        let public = BigUint::from(GENERATOR).modpow(&secret, &group());
        Ok(Self { secret, public })
    }

    /// Our public number in hexadecimal, of even length.
    pub(super) fn public(&self) -> String {
        let hex = self.public.to_str_radix(16);
        if hex.len() % 2 == 1 {
            format!("0{hex}")
        } else {
            hex
        }
    }

    /// Goes on with the server's public number. `Err`: it is none.
    pub(super) fn agree(&self, server: &str, who: &Identity<'_>) -> Result<Agreed, &'static str> {
        let n = group();
        if server.len() > 2 * LENGTH || server.len() % 2 == 1 {
            return Err("the server's public number is not of the group");
        }
        let b = BigUint::parse_bytes(server.as_bytes(), 16)
            .ok_or("the server's public number is not hexadecimal")?;
        // With 0 the key would be known to everybody (RFC 5054, 2.5.3).
        if b == BigUint::ZERO || b >= n {
            return Err("the server's public number is not of the group");
        }
        let g = BigUint::from(GENERATOR);
        let k = BigUint::from_bytes_be(&hash(&[&n.to_bytes_be(), &padded(&g)]));
        let u = BigUint::from_bytes_be(&hash(&[&padded(&self.public), &padded(&b)]));
        let x = BigUint::from_bytes_be(who.x);
        let masked = (k * g.modpow(&x, &n)) % &n;
        let base = (&n + &b - masked) % &n;
        let shared = base.modpow(&(&self.secret + u * x), &n);
        let shared = Zeroizing::new(shared.to_str_radix(16));
        let key = Zeroizing::new(hash(&[shared.as_bytes()]));

        let identity = {
            use base64::Engine as _;
            let identity = hash(&[
                &hash(&[who.key_id.as_bytes()]),
                &hash(&[who.email.to_lowercase().as_bytes()]),
            ]);
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(identity)
        };
        let mut mixed = hash(&[&n.to_bytes_be()]);
        let generator = hash(&[&[GENERATOR]]);
        mixed
            .iter_mut()
            .zip(generator)
            .for_each(|(byte, other)| *byte ^= other);
        let a = self.public.to_bytes_be();
        let proof = hash(&[
            &mixed,
            &hash(&[identity.as_bytes()]),
            who.salt,
            &a,
            &b.to_bytes_be(),
            &*key,
        ]);
        let expected = hash(&[&a, &proof, &*key]);
        Ok(Agreed {
            key,
            proof,
            expected,
        })
    }
}
