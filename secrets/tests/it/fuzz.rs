//! The fuzz target for some seconds' worth of inputs: what the tests know, changed a little.

/// Small and good enough to choose what to change; the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

#[test]
fn no_bytes_panic_a_parser() {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data");
    let mut seeds: Vec<Vec<u8>> = vec![
        include_bytes!("../../manifest.toml").to_vec(),
        b"op://vault/item/section/field?attribute=otp".to_vec(),
        b"vault://mount%2Fdeep/path#key".to_vec(),
        b"https://[::1]:8200".to_vec(),
        b"otpauth://totp/x?secret=GEZDGNBVGY3TQOJQ&digits=8&period=30&algorithm=SHA256".to_vec(),
        br#"{"kid":"mp","enc":"A256GCM","cty":"b5+jwk+json","iv":"AAAAAAAAAAAAAAAA","data":"AAAA"}"#
            .to_vec(),
        br#"{"keysets":[{"uuid":"u","encryptedBy":"mp","encSymKey":{},"encPriKey":{}}]}"#.to_vec(),
        br#"{"fields":[{"designation":"password","value":"x"}],"sections":[{"name":"s","title":"t",
            "fields":[{"k":"concealed","n":"TOTP_1","t":"code","v":"x"},{"v":{"a":[1,null]}}]}]}"#
            .to_vec(),
        std::fs::read(data.join("key.txt")).unwrap(),
        b"a1b2c3/unit/larder-cache.service/jwt-secret".to_vec(),
        b"0::/system.slice/larder-cache.service\n".to_vec(),
        // Last-known-good: name, reference, version, value, time.
        b"\x01\0\0\0n\x01\0\0\0r\0\0\0\0\x05\0\0\0value\x01\0\0\0\0\0\0\0".to_vec(),
    ];
    for entry in std::fs::read_dir(data.join("age")).unwrap() {
        let vector = std::fs::read(entry.unwrap().path()).unwrap();
        let split = vector.windows(2).position(|two| two == b"\n\n").unwrap();
        seeds.push(vector[split + 2..].to_vec());
    }
    let mut random = Random(0x5eed);
    for seed in &seeds {
        secrets::fuzz(seed);
        for _ in 0..60 {
            let mut bytes = seed.clone();
            for _ in 0..=random.next(3) {
                let at = random.next(bytes.len());
                match random.next(4) {
                    0 => bytes.truncate(at),
                    1 if at < bytes.len() => bytes[at] ^= 1 << random.next(8),
                    2 => bytes.insert(at, random.next(256) as u8),
                    _ => {
                        let end = (at + random.next(20)).min(bytes.len());
                        bytes.drain(at..end);
                    }
                }
            }
            secrets::fuzz(&bytes);
        }
    }
}
