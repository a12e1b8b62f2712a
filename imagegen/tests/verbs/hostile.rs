//! Images and manifests that somebody bent: whatever they hold, the verbs end, in words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use formats::gpt::Role;
use formats::region::ReadAt;
use imagegen::diff::Changes;
use imagegen::image::{Description, Image, Uki};
use imagegen::inspect::Report;
use imagegen::manifest::Manifest;
use imagegen::verify::check;

use crate::compose::{Spec, compose};

/// How long each kind of input is tried.
const TIME: Duration = Duration::from_secs(4);

/// A small deterministic generator (xorshift64*), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }

    /// A byte that is likely to hurt.
    fn byte(&mut self) -> u8 {
        match self.below(4) {
            0 => 0,
            1 => 0xFF,
            2 => 1 << self.below(8),
            _ => self.below(256) as u8,
        }
    }
}

/// An image with bytes changed, without a copy of the file.
struct Patched {
    base: Arc<std::fs::File>,
    size: u64,
    patches: Vec<(u64, u8)>,
}

impl ReadAt for Patched {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.base.read_exact_at(buf, offset)?;
        for &(at, byte) in &self.patches {
            if let Some(place) = at.checked_sub(offset).and_then(|n| buf.get_mut(n as usize)) {
                *place = byte;
            }
        }
        Ok(())
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.size)
    }
}

#[test]
fn images() {
    let image = compose(&Spec::default());
    let start = |role| image.start(role);
    // Where metadata is; bytes of data only change hashes.
    let places = [
        (512, 92),
        (1024, 1024),
        (start(Role::Esp), 90),
        (start(Role::Esp) + 16_384, 64),
        (start(Role::Esp) + 1_050_000, 8192),
        (start(Role::RootA) + 1024, 1024),
        (start(Role::RootA) + 4096, 64),
        (start(Role::RootA) + 4 * 4096, 40 * 256),
        (start(Role::RootA) + 8 * 4096, 12 * 4096),
        (start(Role::RootAVerity), 128),
        (start(Role::State) + 1024, 1024),
        (start(Role::State) + 4096, 20 * 4096),
        (start(Role::Cas) + 1024, 1024),
        (start(Role::Cas) + 4096, 20 * 4096),
        (image.layout.disk_size - 512, 92),
    ];
    let base = Arc::new(image.open());
    let mut random = Random(0x1a4d_e401);
    let begin = Instant::now();
    let (mut opened, mut described) = (0, 0);
    while begin.elapsed() < TIME || opened < 10 {
        let patches = (0..=random.below(3))
            .map(|_| {
                let (at, len) = places[random.below(places.len() as u64) as usize];
                (at + random.below(len), random.byte())
            })
            .collect();
        let size = match random.below(10) {
            0 => random.below(image.layout.disk_size),
            _ => image.layout.disk_size,
        };
        let device = Patched {
            base: base.clone(),
            size,
            patches,
        };
        let Ok(bent) = Image::read(Arc::new(device), "bent".as_ref()) else {
            continue;
        };
        opened += 1;
        assert!(!check(&bent, None).text().is_empty());
        assert!(
            !Report::of(&bent, Some(&image.manifest))
                .text(true)
                .is_empty()
        );
        if let Ok(description) = Description::of_image(&bent, None) {
            described += 1;
            let sound = Description::of_manifest("x".as_ref(), image.manifest.clone());
            let _ = Changes::between(&sound, &description).text(true);
        }
    }
    assert!(described > 0);
}

#[test]
fn boot_images() {
    let image = compose(&Spec::default());
    let esp = Image::open(&image.path).unwrap().esp().unwrap();
    let file = &esp.uki_files()[0].content;
    let mut random = Random(0x1a4d_e402);
    let begin = Instant::now();
    let (mut taken, mut refused) = (0, 0);
    while begin.elapsed() < TIME || taken + refused < 10 {
        let mut bytes = file.to_vec();
        for _ in 0..=random.below(6) {
            let at = match random.below(4) {
                0 => random.below(bytes.len() as u64),
                _ => random.below(1500),
            };
            bytes[at as usize] = random.byte();
        }
        if random.below(8) == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        match Uki::parse("/EFI/Linux/x.efi", &bytes) {
            Ok(uki) => {
                taken += 1;
                let _ = uki.root_hash();
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 0 && refused > 0, "{taken}, {refused}");
}

#[test]
fn manifests() {
    let image = compose(&Spec::default());
    let opened = Image::open(&image.path).unwrap();
    let sound = image.manifest.to_json().unwrap().into_bytes();
    let mut random = Random(0x1a4d_e403);
    let begin = Instant::now();
    let (mut taken, mut refused) = (0, 0);
    while begin.elapsed() < TIME || taken + refused < 10 {
        let mut bytes = sound.clone();
        for _ in 0..=random.below(3) {
            // Numbers and names for others: most stay JSON.
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = match bytes[at] {
                digit @ b'0'..=b'9' => digit ^ 1,
                _ if random.below(20) == 0 => random.byte(),
                other => other,
            };
        }
        match Manifest::parse(&bytes, "bent.json".as_ref()) {
            Ok(manifest) => {
                taken += 1;
                let failures = check(&opened, Some(&manifest)).failures();
                assert!(failures == 0 || manifest != image.manifest);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 0 && refused > 0, "{taken}, {refused}");
}
