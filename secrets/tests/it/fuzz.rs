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
        // The inside of a token of a service account.
        br#"{"signInAddress":"my.1password.com","userAuth":{"method":"SRPg-4096","alg":"PBES2g-HS256",
            "iterations":650000,"salt":"AAAAAAAAAAAAAAAAAAAAAA"},"email":"a@1passwordserviceaccounts.com",
            "srpX":"00","muk":{"alg":"A256GCM","ext":true,"k":"AAAA","key_ops":["decrypt"],"kty":"oct",
            "kid":"mp"},"secretKey":"A3-ABCDEF-GHJKLM-NPQRS-TVWXY-Z2345-6789A","deviceUuid":"x"}"#
            .to_vec(),
        // Vault, Connect, a budget, fingerprints.
        br#"{"data":{"data":{"k":"v","n":5},"metadata":{"version":3}},"auth":{"client_token":"s.x",
            "lease_duration":60}}"#
            .to_vec(),
        br#"[{"id":"v","name":"cache","contentVersion":7,"title":"t","state":"ARCHIVED"}]"#.to_vec(),
        br#"{"sections":[{"id":"s","label":"S"}],"fields":[{"id":"f","label":"l","section":{"id":"s"},
            "type":"OTP","value":"x","totp":"123456"}]}"#
            .to_vec(),
        br#"{"tokens":12.5,"at":1800000000.25}"#.to_vec(),
        br#"{"number":1,"key":{"base":5000000000,"secret":[0,1,2]},"fingerprints":[{"length":9,
            "start":7,"whole":[0]}]}"#
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
