//! Whether the names of this machine lead to it: an authority that asks somewhere else only costs
//! failures, of which it allows few.

use std::net::{IpAddr, UdpSocket};

/// Resolves names; another one in tests.
pub(super) trait Resolve: Send + Sync {
    /// The addresses of a name. `Err`: in words.
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> secrets::transport::Pending<'a, Result<Vec<IpAddr>, String>>;

    /// Whether an address is one of this machine.
    fn is_ours(&self, address: IpAddr) -> bool;
}

/// The system's resolver and addresses.
pub(super) struct System;

impl Resolve for System {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> secrets::transport::Pending<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 80)).await;
            let found = found.map_err(|error| error.to_string())?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        // The kernel binds only what is local, and asking it needs no right.
        UdpSocket::bind((address, 0)).is_ok()
    }
}

/// Checks that all names lead here, and nowhere else.
///
/// # Errors
///
/// What is wrong with which name, and what to do.
pub(super) async fn check(names: &[String], resolve: &dyn Resolve) -> Result<(), String> {
    let mut wrong = Vec::new();
    for name in names {
        if name.parse::<IpAddr>().is_ok() {
            continue;
        }
        match resolve.resolve(name).await {
            Err(error) => wrong.push(format!("{name} cannot be resolved ({error})")),
            Ok(found) if found.is_empty() => wrong.push(format!("{name} has no address")),
            Ok(found) => {
                let strange: Vec<_> = found
                    .iter()
                    .filter(|address| !resolve.is_ours(**address))
                    .map(ToString::to_string)
                    .collect();
                if !strange.is_empty() {
                    wrong.push(format!("{name} leads to {}", strange.join(", ")));
                }
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "no certificate is ordered: {}, which is not this machine; correct the DNS or the machine's \
         names, or set check_dns = false behind address translation",
        wrong.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Double(Vec<IpAddr>);

    impl Resolve for Double {
        fn resolve<'a>(
            &'a self,
            name: &'a str,
        ) -> secrets::transport::Pending<'a, Result<Vec<IpAddr>, String>> {
            Box::pin(async move {
                match name {
                    "none.example" => Err("no such name".into()),
                    _ => Ok(self.0.clone()),
                }
            })
        }

        fn is_ours(&self, address: IpAddr) -> bool {
            address == IpAddr::from([192, 0, 2, 1])
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_is_said() {
        let check = async |addresses: &[&str], name: &str| {
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            super::check(&[name.into()], &Double(addresses)).await
        };
        assert_eq!(check(&["192.0.2.1"], "a.example").await, Ok(()));
        // The authority may choose the other one.
        let error = check(&["192.0.2.1", "2001:db8::9"], "a.example")
            .await
            .unwrap_err();
        assert!(error.contains("a.example leads to 2001:db8::9"), "{error}");
        let error = check(&[], "a.example").await.unwrap_err();
        assert!(error.contains("a.example has no address"), "{error}");
        let error = check(&[], "none.example").await.unwrap_err();
        assert!(
            error.contains("none.example cannot be resolved (no such name)"),
            "{error}"
        );
        assert_eq!(check(&[], "192.0.2.77").await, Ok(()));
    }

    #[test]
    fn own_addresses_are_told_from_others() {
        assert!(System.is_ours("127.0.0.1".parse().unwrap()));
        assert!(!System.is_ours("192.0.2.1".parse().unwrap()));
    }
}
