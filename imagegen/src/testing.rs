//! What the tests of several modules share.

/// A PE32+ image of nothing but sections.
pub(crate) fn pe(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut head = vec![0; 0x40];
    head[..2].copy_from_slice(b"MZ");
    head[0x3c] = 0x40;
    head.extend(b"PE\0\0\x64\x86");
    head.extend((sections.len() as u16).to_le_bytes());
    head.extend([0; 12]);
    head.extend(240_u16.to_le_bytes());
    head.extend([0; 2]);
    let mut optional = vec![0; 240];
    optional[..2].copy_from_slice(&0x20b_u16.to_le_bytes());
    optional[32..36].copy_from_slice(&4096_u32.to_le_bytes());
    optional[36..40].copy_from_slice(&512_u32.to_le_bytes());
    head.extend(optional);
    let mut data = Vec::new();
    let start = head.len() + 40 * sections.len();
    for (name, content) in sections {
        let mut section = [0; 40];
        section[..name.len()].copy_from_slice(name.as_bytes());
        let words = [
            (8, content.len()),
            (16, content.len()),
            (20, start + data.len()),
        ];
        for (at, word) in words {
            section[at..at + 4].copy_from_slice(&(word as u32).to_le_bytes());
        }
        head.extend(section);
        data.extend(*content);
    }
    [head, data].concat()
}
