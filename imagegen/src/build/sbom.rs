//! `larder.sbom.json`: what is in the image, as SPDX 2.3.
//!
//! Fields are those of the specification's JSON serialisation (ISO/IEC 5962 with the additions of
//! 2.3); a package is named by its package URL, so that scanners find its advisories.

use serde_json::{Value, json};

/// One package of the image.
pub(super) struct Item {
    /// Name, as its ecosystem calls it.
    pub(super) name: String,
    /// Version.
    pub(super) version: String,
    /// Package URL without version and qualifiers: `pkg:deb/debian/bash`.
    pub(super) purl: String,
    /// Qualifiers of the package URL, `?` included, or nothing.
    pub(super) qualifiers: String,
    /// SHA-256 of the archive that it came in, or of the program itself.
    pub(super) sha256: Option<String>,
    /// `Organization: Debian`.
    pub(super) supplier: &'static str,
    /// Licence expression, if it is known.
    pub(super) license: Option<String>,
}

/// The image as a whole.
pub(super) struct Image<'a> {
    pub(super) id: &'a str,
    pub(super) version: &'a str,
    /// Root hash: two images of one version with different content are two documents.
    pub(super) root_hash: &'a str,
    /// `2026-11-23T02:09:33Z`.
    pub(super) created: String,
}

const IMAGE: &str = "SPDXRef-Image";

/// The document, pretty JSON, the same for the same input.
pub(super) fn document(image: &Image<'_>, items: &[Item]) -> String {
    let whole = Item {
        name: image.id.to_string(),
        version: image.version.to_string(),
        purl: format!("pkg:generic/{}", image.id),
        qualifiers: String::new(),
        sha256: None,
        supplier: "Organization: Larder",
        license: None,
    };
    let mut packages = vec![package(IMAGE, &whole, "OPERATING-SYSTEM")];
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    for (number, item) in items.iter().enumerate() {
        let id = format!("SPDXRef-{number}-{}", plain(&item.name));
        packages.push(package(&id, item, "LIBRARY"));
        relationships.push(relation(IMAGE, "CONTAINS", &id));
    }
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}-{}", image.id, image.version),
        "documentNamespace": format!("urn:larder:sbom:{}:{}", percent(image.version), image.root_hash),
        "creationInfo": { "created": image.created, "creators": ["Tool: larder-imagegen"] },
        "packages": packages,
        "relationships": relationships,
    });
    format!("{document:#}\n")
}

fn package(id: &str, item: &Item, purpose: &str) -> Value {
    let version = percent(&item.version);
    let mut package = json!({
        "SPDXID": id,
        "name": item.name,
        "versionInfo": item.version,
        "supplier": item.supplier,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": item.license.as_deref().unwrap_or("NOASSERTION"),
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": purpose,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("{}@{version}{}", item.purl, item.qualifiers),
        }],
    });
    if let Some(sha256) = &item.sha256 {
        package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
    }
    package
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// What an SPDX identifier may hold: letters, digits, `.` and `-`.
fn plain(name: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    name.chars().map(keep).collect()
}

/// Percent-encoding of a package URL's version.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                out.push(byte as char);
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_every_package_once_with_its_purl() {
        let image = Image {
            id: "larder",
            version: "1+2",
            root_hash: "ab",
            created: "T".into(),
        };
        let item = |name: &str, version: &str| Item {
            name: name.into(),
            version: version.into(),
            purl: format!("pkg:deb/debian/{name}"),
            qualifiers: "?arch=amd64".into(),
            sha256: Some("00".repeat(32)),
            supplier: "Organization: Debian",
            license: None,
        };
        let text = document(&image, &[item("libstdc++6", "1:2.3+b1"), item("a", "1~2")]);
        insta::assert_snapshot!(text);
    }
}
