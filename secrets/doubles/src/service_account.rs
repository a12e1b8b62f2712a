//! The service-account side of 1Password, as far as clients of it were seen to use it.
//!
//! Not a documented public API. The double refuses what is out of order: requests before the
//! handshake is done, a MAC that does not fit or does not count on, a body under another key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use num_bigint::BigUint;
use ring::{aead, digest, hmac};
use serde_json::{Value, json};

use crate::library::{Item, Kind, Library, Shelf};
use crate::server::{Answer, Certificate, Received, Server};
use crate::{decode, encode, random};

const RSA: &str = include_str!("rsa-test-key.json");
const GROUP: &str = include_str!("group16.hex");
const KEYSET: &str = "keysetaaaaaaaaaaaaaaaaaaaa";
/// Key of the MAC key, found in the vendor's client.
const MAC_CONTEXT: &[u8] = b"He never wears a Mac, in the pouring rain. Very strange.";

/// The cloud, with one service account.
pub struct ServiceAccount {
    /// Where it answers.
    pub server: Server,
    /// What it holds.
    pub library: Library,
    state: Arc<Mutex<State>>,
}

struct State {
    account: Account,
    sessions: HashMap<String, Session>,
    vault_keys: HashMap<String, [u8; 32]>,
    tamper: Tamper,
}

/// The one account.
#[derive(Clone)]
struct Account {
    email: String,
    secret_key: String,
    salt: [u8; 16],
    srp_x: [u8; 32],
    muk: [u8; 32],
    device: String,
}

/// Damage to what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Tamper {
    /// None.
    #[default]
    None,
    /// The server takes any proof and has none itself, as somebody in its place would.
    ServerProof,
    /// One bit of each encrypted body is flipped.
    Ciphertext,
    /// Bodies name another key than the session's.
    Kid,
    /// Bodies name another encryption.
    Encryption,
    /// Vault keys are encrypted by a keyset that nobody has.
    Keyset,
}

struct Session {
    client_public: BigUint,
    secret: BigUint,
    public: BigUint,
    key: [u8; 32],
    confirmed: bool,
    next: Option<u64>,
}

impl ServiceAccount {
    /// Starts a cloud that holds nothing.
    pub fn start(certificate: Certificate) -> Self {
        let library = Library::default();
        let account = Account {
            email: format!("{}@1passwordserviceaccounts.com", crate::id()),
            secret_key: "A3-ABCDEF-GHJKLM-NPQRS-TVWXY-Z2345-6789A".into(),
            salt: random(),
            srp_x: random(),
            muk: random(),
            device: crate::id(),
        };
        let state = Arc::new(Mutex::new(State {
            account,
            sessions: HashMap::new(),
            vault_keys: HashMap::new(),
            tamper: Tamper::None,
        }));
        let (shown, held) = (library.clone(), state.clone());
        let server = Server::start(certificate, move |request| {
            let mut state = held.lock().unwrap_or_else(PoisonError::into_inner);
            answer(request, &mut state, &shown.lock()).unwrap_or_else(|status| {
                Answer::json(
                    status,
                    &json!({ "errorCode": status, "errorMessage": "double" }),
                )
            })
        });
        Self {
            server,
            library,
            state,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token of the account (`ops_…`), for this server.
    pub fn token(&self) -> String {
        self.token_at(&self.server.url())
    }

    /// The same for whoever reaches this server under another address, such as `https://host:8443`.
    pub fn token_at(&self, address: &str) -> String {
        let mut fields = self.token_fields();
        fields["signInAddress"] = address.into();
        format!("ops_{}", encode(fields.to_string()))
    }

    /// What is inside of the token.
    pub fn token_fields(&self) -> Value {
        let account = &self.state().account;
        let hex: String = account
            .srp_x
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        json!({
            "signInAddress": self.server.url(),
            "userAuth": user_auth(account),
            "email": account.email,
            "srpX": hex,
            "muk": {
                "alg": "A256GCM", "ext": true, "k": encode(account.muk),
                "key_ops": ["decrypt", "encrypt"], "kty": "oct", "kid": "mp",
            },
            "secretKey": account.secret_key,
            "deviceUuid": account.device,
        })
    }

    /// Ends all sessions, as the cloud does from time to time.
    pub fn end_sessions(&self) {
        self.state().sessions.clear();
    }

    /// Damages what is sent from now on.
    pub fn tamper(&self, tamper: Tamper) {
        self.state().tamper = tamper;
    }
}

fn user_auth(account: &Account) -> Value {
    json!({
        "method": "SRPg-4096", "alg": "PBES2g-HS256", "iterations": 650_000,
        "salt": encode(account.salt),
    })
}

fn answer(request: &Received, state: &mut State, vaults: &[Shelf]) -> Result<Answer, u16> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let call = (request.method.as_str(), path);
    if call == ("POST", "/api/v3/auth/start") {
        return start(request, state);
    }
    let id = request
        .header("x-agilebits-session-id")
        .ok_or(401_u16)?
        .to_owned();
    let State {
        account,
        sessions,
        vault_keys,
        tamper,
    } = state;
    let session = sessions.get_mut(&id).ok_or(401_u16)?;
    match call {
        ("POST", "/api/v2/auth") => return exchange(request, session, account),
        ("POST", "/api/v2/auth/confirm-key") if *tamper == Tamper::ServerProof => {
            return Ok(Answer::json(
                200,
                &json!({ "serverVerifyHash": encode([0; 32]) }),
            ));
        }
        ("POST", "/api/v2/auth/confirm-key") => return confirm(request, session, account),
        _ => {}
    }
    if !session.confirmed {
        return Err(401);
    }
    check_mac(request, session, &id)?;
    let body = match request.body.is_empty() {
        true => Value::Null,
        false => {
            let body: Value = serde_json::from_slice(&request.body).map_err(|_| 400_u16)?;
            if body["kid"] != id.as_str() {
                return Err(400);
            }
            serde_json::from_slice(&open(&session.key, &body).ok_or(400_u16)?)
                .map_err(|_| 400_u16)?
        }
    };
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let mut key_of = |vault: &str| *vault_keys.entry(vault.into()).or_insert_with(random::<32>);
    let find = |id: &str| vaults.iter().find(|vault| vault.id == id).ok_or(404_u16);
    let plain = match (request.method.as_str(), &parts[..]) {
        ("POST", ["api", "v2", "auth", "complete"]) => {
            json!({ "userUuid": "USERAAAAAAAAAAAAAAAAAAAAAA", "mfa": null })
        }
        ("GET", ["api", "v1", "vaults"]) if query == "attrs=combined-access" => vaults
            .iter()
            .map(|vault| vault_json(vault, &key_of(&vault.id), *tamper))
            .collect(),
        ("GET", ["api", "v2", "account", "keysets"]) => keysets(account),
        ("GET", ["api", "v1", "vault", vault, "items", "overviews"]) => {
            let vault = find(vault)?;
            let key = key_of(&vault.id);
            let items = vault
                .items
                .iter()
                .map(|item| item_json(vault, item, &key, false));
            json!({
                "contentVersion": vault.content_version, "batchComplete": true,
                "items": items.collect::<Vec<_>>(),
            })
        }
        ("GET", ["api", "v1", "vault", vault, "item", item]) => {
            let vault = find(vault)?;
            let key = key_of(&vault.id);
            let item = vault.items.iter().find(|i| i.id == *item).ok_or(404_u16)?;
            json!({
                "contentVersion": vault.content_version,
                "item": item_json(vault, item, &key, true),
            })
        }
        ("POST", ["api", "v3", "vault", vault, "items", "batch"]) => {
            let vault = find(vault)?;
            let key = key_of(&vault.id);
            let wanted = body["itemUuids"].as_array().ok_or(400_u16)?;
            let items = wanted
                .iter()
                .filter_map(|id| vault.items.iter().find(|i| *id == *i.id));
            let items: Vec<_> = items
                .map(|item| item_json(vault, item, &key, true))
                .collect();
            json!({ "contentVersion": vault.content_version, "items": items })
        }
        ("PUT", ["api", "v1", "session", "signout"]) => {
            sessions.remove(&id);
            return Ok(Answer::json(200, &json!({ "success": 1 })));
        }
        _ => return Err(404),
    };
    let mut sealed = seal(&session.key, &id, plain.to_string().as_bytes());
    match tamper {
        Tamper::Ciphertext => {
            let mut data = decode(sealed["data"].as_str().unwrap_or_default()).unwrap_or_default();
            data[0] ^= 1;
            sealed["data"] = encode(data).into();
        }
        Tamper::Kid => sealed["kid"] = "another".into(),
        Tamper::Encryption => sealed["enc"] = "none".into(),
        _ => {}
    }
    Ok(Answer::json(200, &sealed))
}

fn start(request: &Received, state: &mut State) -> Result<Answer, u16> {
    let body: Value = serde_json::from_slice(&request.body).map_err(|_| 400_u16)?;
    let account = &state.account;
    let key_id = account.secret_key.split('-').nth(1).unwrap_or_default();
    if body["email"] != account.email.as_str() || body["skFormat"] != "A3" || body["skid"] != key_id
    {
        return Err(401);
    }
    if body["deviceUuid"] != account.device.as_str() {
        return Ok(Answer::json(
            200,
            &json!({ "status": "device-not-registered" }),
        ));
    }
    let id = crate::id().to_uppercase();
    let session = Session {
        client_public: BigUint::default(),
        secret: BigUint::from_bytes_be(&random::<32>()),
        public: BigUint::default(),
        key: [0; 32],
        confirmed: false,
        next: None,
    };
    state.sessions.insert(id.clone(), session);
    Ok(Answer::json(
        200,
        &json!({
            "status": "ok", "sessionID": id, "accountKeyFormat": "A3",
            "accountKeyUuid": key_id, "userAuth": user_auth(account),
        }),
    ))
}

fn group() -> BigUint {
    let hex: String = GROUP.split_whitespace().collect();
    BigUint::parse_bytes(hex.as_bytes(), 16).expect("a constant")
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

fn padded(number: &BigUint) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    [vec![0; 512 - bytes.len()], bytes].concat()
}

fn exchange(request: &Received, session: &mut Session, account: &Account) -> Result<Answer, u16> {
    let body: Value = serde_json::from_slice(&request.body).map_err(|_| 400_u16)?;
    let hex = body["userA"].as_str().ok_or(400_u16)?;
    let a = BigUint::parse_bytes(hex.as_bytes(), 16).ok_or(400_u16)?;
    let (n, g) = (group(), BigUint::from(5_u32));
    if &a % &n == BigUint::default() {
        return Err(400);
    }
    let x = BigUint::from_bytes_be(&account.srp_x);
    let verifier = g.modpow(&x, &n);
    let k = BigUint::from_bytes_be(&sha256(&[&n.to_bytes_be(), &padded(&g)]));
    let b = (k * &verifier + g.modpow(&session.secret, &n)) % &n;
    let u = BigUint::from_bytes_be(&sha256(&[&padded(&a), &padded(&b)]));
    let shared = (&a * verifier.modpow(&u, &n)).modpow(&session.secret, &n);
    let key = sha256(&[shared.to_str_radix(16).as_bytes()]);
    session.key.copy_from_slice(&key);
    session.client_public = a;
    session.public = b;
    let mut hex = session.public.to_str_radix(16);
    if hex.len() % 2 == 1 {
        hex.insert(0, '0');
    }
    Ok(Answer::json(200, &json!({ "userB": hex })))
}

fn confirm(request: &Received, session: &mut Session, account: &Account) -> Result<Answer, u16> {
    let body: Value = serde_json::from_slice(&request.body).map_err(|_| 400_u16)?;
    let key_id = account.secret_key.split('-').nth(1).unwrap_or_default();
    let identity = encode(sha256(&[
        &sha256(&[key_id.as_bytes()]),
        &sha256(&[account.email.to_lowercase().as_bytes()]),
    ]));
    let n = sha256(&[&group().to_bytes_be()]);
    let g = sha256(&[&[5]]);
    let mixed: Vec<u8> = n.iter().zip(&g).map(|(n, g)| n ^ g).collect();
    let a = session.client_public.to_bytes_be();
    let proof = sha256(&[
        &mixed,
        &sha256(&[identity.as_bytes()]),
        &account.salt,
        &a,
        &session.public.to_bytes_be(),
        &session.key,
    ]);
    if body["clientVerifyHash"] != encode(&proof) {
        return Err(401);
    }
    session.confirmed = true;
    let answer = sha256(&[&a, &proof, &session.key]);
    Ok(Answer::json(
        200,
        &json!({ "serverVerifyHash": encode(answer) }),
    ))
}

fn check_mac(request: &Received, session: &mut Session, id: &str) -> Result<(), u16> {
    let header = request.header("x-agilebits-mac").ok_or(401_u16)?;
    let [version, count, mac] = header.split('|').collect::<Vec<_>>()[..] else {
        return Err(401);
    };
    let number: u64 = count.parse().map_err(|_| 401_u16)?;
    if session.next.is_some_and(|next| next != number) {
        return Err(401);
    }
    session.next = Some(number + 1);
    // Without the port.
    let host = request.header("host").ok_or(400_u16)?;
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let text = format!(
        "{id}|{}|{host}{path}?{query}|{version}|{number}",
        request.method
    );
    let key = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, &session.key),
        MAC_CONTEXT,
    );
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
        text.as_bytes(),
    );
    if encode(&tag.as_ref()[..12]) == mac && version == "v1" {
        Ok(())
    } else {
        Err(401)
    }
}

fn seal(key: &[u8; 32], id: &str, plain: &[u8]) -> Value {
    let nonce = random::<12>();
    let mut data = plain.to_vec();
    let cipher = aead::UnboundKey::new(&aead::AES_256_GCM, key).expect("32 bytes");
    aead::LessSafeKey::new(cipher)
        .seal_in_place_append_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::empty(),
            &mut data,
        )
        .expect("a short text");
    json!({
        "kid": id, "enc": "A256GCM", "cty": "b5+jwk+json",
        "iv": encode(nonce), "data": encode(data),
    })
}

fn open(key: &[u8; 32], sealed: &Value) -> Option<Vec<u8>> {
    if sealed["enc"] != "A256GCM" || sealed["cty"] != "b5+jwk+json" {
        return None;
    }
    let nonce = decode(sealed["iv"].as_str()?)?.try_into().ok()?;
    let mut data = decode(sealed["data"].as_str()?)?;
    let cipher = aead::UnboundKey::new(&aead::AES_256_GCM, key).ok()?;
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    let plain = aead::LessSafeKey::new(cipher)
        .open_in_place(nonce, aead::Aad::empty(), &mut data)
        .ok()?;
    Some(plain.to_vec())
}

/// A symmetric key as a JSON Web Key.
fn jwk(key: &[u8; 32], id: &str) -> String {
    json!({
        "alg": "A256GCM", "ext": true, "k": encode(key), "key_ops": ["decrypt", "encrypt"],
        "kty": "oct", "kid": id,
    })
    .to_string()
}

fn keysets(account: &Account) -> Value {
    let middle = random::<32>();
    let rsa: Value = serde_json::from_str(RSA).expect("a constant");
    let public = json!({
        "alg": "RSA-OAEP", "kty": "RSA", "n": rsa["n"], "e": rsa["e"], "kid": KEYSET,
        "key_ops": ["encrypt"], "ext": true,
    });
    json!({
        "version": 1,
        "keysets": [{
            "uuid": KEYSET, "encryptedBy": "mp", "sn": 1,
            "encSymKey": seal(&account.muk, "mp", jwk(&middle, KEYSET).as_bytes()),
            "encPriKey": seal(&middle, KEYSET, rsa.to_string().as_bytes()),
            "pubKey": public,
        }],
    })
}

/// RSA-OAEP with SHA-1 (RFC 8017, 7.1.1), to the test key.
fn rsa_seal(plain: &[u8]) -> Vec<u8> {
    let sha1 = |data: &[u8]| {
        digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data)
            .as_ref()
            .to_vec()
    };
    let mask = |seed: &[u8], data: &mut [u8]| {
        for (counter, block) in data.chunks_mut(20).enumerate() {
            let pad = sha1(&[seed, &(counter as u32).to_be_bytes()].concat());
            block
                .iter_mut()
                .zip(pad)
                .for_each(|(byte, pad)| *byte ^= pad);
        }
    };
    let key: Value = serde_json::from_str(RSA).expect("a constant");
    let n = decode(key["n"].as_str().unwrap_or_default()).expect("a constant");
    let mut seed = random::<20>();
    let mut block = sha1(b"");
    block.resize(n.len() - 22 - plain.len(), 0);
    block.push(1);
    block.extend_from_slice(plain);
    mask(&seed, &mut block);
    mask(&block, &mut seed);
    let message = BigUint::from_bytes_be(&[&[0][..], &seed, &block].concat());
    let sealed = message.modpow(&BigUint::from(65537_u32), &BigUint::from_bytes_be(&n));
    let bytes = sealed.to_bytes_be();
    [vec![0; n.len() - bytes.len()], bytes].concat()
}

fn vault_json(vault: &Shelf, key: &[u8; 32], tamper: Tamper) -> Value {
    let keyset = match tamper {
        Tamper::Keyset => "keysetbbbbbbbbbbbbbbbbbbbb",
        _ => KEYSET,
    };
    let attributes = json!({ "name": vault.name, "desc": "", "type": "U" }).to_string();
    json!({
        "uuid": vault.id, "type": "U", "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z", "attrVersion": 1,
        "contentVersion": vault.content_version,
        "encAttrs": seal(key, &vault.id, attributes.as_bytes()),
        "activeItemCount": vault.items.len(), "clientAccess": 1,
        "combinedAccess": {
            "vaultUuid": vault.id, "accessorType": "user",
            "accessorUuid": "USERAAAAAAAAAAAAAAAAAAAAAA", "accessVersion": 1, "acl": 1,
            "leaseTimeout": 0, "vaultKeySN": 1,
            "encVaultKey": {
                "kid": keyset, "enc": "RSA-OAEP", "cty": "b5+jwk+json",
                "data": encode(rsa_seal(jwk(key, &vault.id).as_bytes())),
            },
            "encryptedBy": keyset,
        },
    })
}

fn item_json(vault: &Shelf, item: &Item, key: &[u8; 32], details: bool) -> Value {
    let overview = json!({ "title": item.title, "ainfo": "", "tags": [] }).to_string();
    let mut json = json!({
        "uuid": item.id, "templateUuid": "003", "trashed": if item.trashed { "Y" } else { "N" },
        "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
        "itemVersion": 1, "changerUuid": "USERAAAAAAAAAAAAAAAAAAAAAA", "faveIndex": 0,
        "encryptedBy": vault.id, "encOverview": seal(key, &vault.id, overview.as_bytes()),
    });
    if details {
        let mut sections: Vec<Value> = Vec::new();
        for field in &item.fields {
            let (id, label) = field.section.clone().unwrap_or_default();
            let index = sections
                .iter()
                .position(|section| section["name"] == id.as_str());
            let index = index.unwrap_or_else(|| {
                sections.push(json!({ "name": id, "title": label, "fields": [] }));
                sections.len() - 1
            });
            let (kind, name) = match field.kind {
                Kind::Text => ("string", field.id.clone()),
                Kind::Concealed => ("concealed", field.id.clone()),
                Kind::OneTimePassword => ("concealed", format!("TOTP_{}", field.id)),
            };
            let entry = json!({ "k": kind, "n": name, "t": field.label, "v": field.value });
            if let Some(fields) = sections[index]["fields"].as_array_mut() {
                fields.push(entry);
            }
        }
        let text = json!({
            "fields": [], "sections": sections, "notesPlain": "", "passwordHistory": [],
        });
        json["encDetails"] = seal(key, &vault.id, text.to_string().as_bytes());
    }
    json
}
