//! The fetcher: who gets what and when. Time is tokio's paused one: hours pass at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrets::fetcher::{Fetcher, Source};
use secrets::manifest::{self, OnChange};
use secrets::reference::Scheme;
use secrets::{Budget, Class};
use tokio::time::Instant;

use crate::shop::{Machine, Shop, Wax, consumer, get, words};

const ONE: &str = r#"
[secrets.jwt]
reference = "op://v/i/jwt"
consumers = [{ unit = "cache.service" }]
on_change = "reload"
required = true

[secrets.tls]
reference = "op://v/i/tls"
consumers = [{ unit = "cache.service" }]
"#;

/// How a secret is, by `appliance secrets status`.
fn state(fetcher: &Fetcher, name: &str) -> String {
    let status = fetcher.status();
    status
        .secrets
        .into_iter()
        .find(|secret| secret.name == name)
        .unwrap()
        .state
}

#[tokio::test(start_paused = true)]
async fn a_bad_reference_blocks_nobody_else() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "jwt-value");
    let secrets = format!(
        "{ONE}[secrets.other]\nreference = \"cred://other\"\nconsumers = [{{ unit = \"x.service\" }}]"
    );
    // Another provider hangs for ever.
    let hanging = Shop::default();
    hanging.hang();
    let sources = BTreeMap::from([(
        Scheme::Cred,
        Source {
            provider: Arc::new(hanging),
            budget: None,
        },
    )]);
    let fetcher = machine.boot_with(&secrets, Wax::default(), sources).await;
    let began = Instant::now();
    assert_eq!(get(&fetcher, "cache", "jwt").await, "jwt-value");
    // Missing and optional: at once, not after a wait.
    assert_eq!(get(&fetcher, "cache", "tls").await, "absent");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(get(&fetcher, "x", "other").await, "absent");
    assert_eq!(
        began.elapsed().as_secs(),
        20,
        "optional, and the provider hangs"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_else_gets_it() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "jwt-value");
    let fetcher = machine.boot(ONE).await;
    assert_eq!(get(&fetcher, "other", "jwt").await, "denied");
    assert_eq!(get(&fetcher, "cache", "none").await, "denied");
    assert_eq!(
        words(&fetcher.current(&consumer("other", "jwt")).await.unwrap()),
        "denied"
    );
}

#[tokio::test(start_paused = true)]
async fn a_required_secret_is_waited_for_and_then_fails_the_unit() {
    let machine = Machine::new();
    machine.shop.fail(Class::Unavailable);
    let fetcher = machine.boot(ONE).await;
    let began = Instant::now();
    assert_eq!(get(&fetcher, "cache", "jwt").await, "fail");
    // Five starts in ten seconds is systemd's limit; this is far from it.
    assert_eq!(began.elapsed().as_secs(), 40);
    // It comes while the next start waits.
    let waiting = tokio::spawn({
        let fetcher = fetcher.clone();
        async move { get(&fetcher, "cache", "jwt").await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    machine.shop.set("op://v/i/jwt", "jwt-value");
    machine.shop.work();
    fetcher.reload();
    assert_eq!(waiting.await.unwrap(), "jwt-value");
}

#[tokio::test(start_paused = true)]
async fn one_start_waits_once_for_all_its_credentials() {
    let machine = Machine::new();
    machine.shop.hang();
    let mut secrets = String::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        secrets += &format!(
            "[secrets.{name}]\nreference = \"op://v/i/{name}\"\nconsumers = [{{ unit = \"x.service\" }}]\n"
        );
    }
    let fetcher = machine.boot(&secrets).await;
    let began = Instant::now();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let reply = fetcher.serve(&consumer("x", name), Some("start-1")).await;
        assert_eq!(words(&reply), "absent");
    }
    assert_eq!(began.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn the_last_known_good_value_serves_when_the_provider_is_down() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "canary-jwt-value");
    machine.shop.set("op://v/i/tls", "canary-tls-value");
    let stale = ONE.replace("required = true", "required = true\nstale = \"1d\"");
    let never = format!("{stale}stale = \"never\"");
    let fetcher = machine.boot(&never).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "canary-jwt-value");
    drop(fetcher);
    for file in ["key", "values"] {
        let bytes = std::fs::read(machine.folder.path().join(file)).unwrap();
        assert!(
            !String::from_utf8_lossy(&bytes).contains("canary"),
            "{file}"
        );
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(machine.folder.path().join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    // A boot later; the provider does not answer.
    machine.shop.fail(Class::Unavailable);
    let fetcher = machine.boot(&never).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "canary-jwt-value");
    assert_eq!(state(&fetcher, "jwt"), "last-known-good");
    assert_eq!(
        get(&fetcher, "cache", "tls").await,
        "absent",
        "its policy is never"
    );
    // The provider is back, with another value.
    machine.shop.set("op://v/i/jwt", "rotated-jwt-value");
    machine.shop.work();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "rotated-jwt-value");
    assert_eq!(state(&fetcher, "jwt"), "fresh");
    drop(fetcher);

    // It hangs instead of failing: the unit is not held up for long.
    let hanging = Shop::default();
    hanging.hang();
    let sources = || {
        BTreeMap::from([(
            Scheme::Op,
            Source {
                provider: Arc::new(hanging.clone()),
                budget: None,
            },
        )])
    };
    let fetcher = machine.boot_with(&never, Wax::default(), sources()).await;
    let began = Instant::now();
    assert_eq!(get(&fetcher, "cache", "jwt").await, "rotated-jwt-value");
    assert_eq!(began.elapsed().as_secs(), 10);
    drop(fetcher);

    // Past its staleness.
    machine.clock.advance(Duration::from_secs(2 * 86400));
    let fetcher = machine.boot_with(&never, Wax::default(), sources()).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "fail");
    drop(fetcher);

    // Under another reference it is another secret.
    let machine_two = stale.replace("op://v/i/jwt", "op://v/i/other");
    let fetcher = machine
        .boot_with(&machine_two, Wax::default(), sources())
        .await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "fail");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_nobody_confirms_grows_stale_in_memory_too() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "jwt-value");
    let fetcher = machine
        .boot(&ONE.replace("required = true", "stale = \"1h\""))
        .await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "jwt-value");
    machine.shop.fail(Class::Unavailable);
    tokio::time::sleep(Duration::from_secs(3000)).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "jwt-value");
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "absent");
    assert_eq!(state(&fetcher, "jwt"), "stale");
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_withdraws_goes_when_that_is_certain() {
    for class in [Class::Missing, Class::Denied] {
        let machine = Machine::new();
        machine.shop.set("op://v/i/jwt", "jwt-value");
        let fetcher = machine.boot(ONE).await;
        assert_eq!(get(&fetcher, "cache", "jwt").await, "jwt-value");
        machine.shop.fail(class);
        // Said once.
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(get(&fetcher, "cache", "jwt").await, "jwt-value");
        // Said again, more than five minutes later.
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(state(&fetcher, "jwt"), "missing");
        assert_eq!(get(&fetcher, "cache", "jwt").await, "fail");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_takes_nothing_away() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "jwt-value");
    let fetcher = machine.boot(ONE).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "jwt-value");
    machine.shop.fail(Class::Unauthorized);
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "jwt-value");
    let status = fetcher.status();
    assert_eq!(status.secrets[0].error, Some(Class::Unauthorized));
}

#[tokio::test(start_paused = true)]
async fn failures_are_asked_again_with_care() {
    // In an hour: about how often each kind of failure is asked.
    for (class, wait, least, most) in [
        (Class::Unauthorized, None, 4, 5),
        (Class::RateLimited, None, 4, 5),
        (Class::RateLimited, Some(1200), 3, 4),
        (Class::Budget, Some(600), 6, 7),
        (Class::Unavailable, None, 15, 60),
        (Class::Protocol, None, 15, 60),
        // An answer about the reference: with each look for changes.
        (Class::Missing, None, 54, 67),
    ] {
        let machine = Machine::new();
        match wait {
            Some(wait) => machine.shop.fail_for(class, Duration::from_secs(wait)),
            None => machine.shop.fail(class),
        }
        let fetcher = machine.boot(ONE).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let (fetches, looks) = machine.shop.asked();
        assert!(
            (least..=most).contains(&fetches),
            "{class}: {fetches} in an hour"
        );
        assert_eq!(looks, 0);
        drop(fetcher);
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_for_changes_is_all_while_nothing_changes() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "jwt-value");
    machine.shop.set("op://v/i/tls", "tls-value");
    let _fetcher = machine.boot(ONE).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let (fetches, looks) = machine.shop.asked();
    assert_eq!(fetches, 1);
    assert!((54..=67).contains(&looks), "{looks} a minute apart");
}

#[tokio::test(start_paused = true)]
async fn a_restarting_unit_gets_what_is_new_within_the_budget() {
    let mut machine = Machine::new();
    let limits = manifest::Budget {
        burst: 20,
        per_hour: 1,
    };
    let budget = Arc::new(Budget::open(limits, None, machine.clock.clone()));
    machine.budget = Some(budget.clone());
    machine.shop.spend_from(budget);
    machine.shop.set("op://v/i/jwt", "jwt-value");
    machine.shop.set("op://v/i/tls", "tls-value");
    let fetcher = machine.boot(ONE).await;
    let start =
        async |start: &str| words(&fetcher.serve(&consumer("cache", "jwt"), Some(start)).await);
    assert_eq!(start("first").await, "jwt-value");
    assert_eq!(machine.shop.asked(), (1, 0), "just fetched");
    tokio::time::sleep(Duration::from_secs(10)).await;
    machine.shop.set("op://v/i/jwt", "rotated-value");
    // ExecStartPre and ExecStart of one start ask again, and get no new look.
    assert_eq!(start("first").await, "jwt-value");
    assert_eq!(start("second").await, "rotated-value");
    assert_eq!(machine.shop.asked(), (2, 1));
    // A crash loop: at most half of the budget goes, and the unit still starts.
    for number in 0..100 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(start(&format!("crash-{number}")).await, "rotated-value");
    }
    let (fetches, looks) = machine.shop.asked();
    assert!(fetches + looks <= 20, "{fetches} fetches and {looks} looks");
}

#[tokio::test(start_paused = true)]
async fn changes_reach_units_in_order_once_and_not_too_often() {
    let machine = Machine::new();
    let secrets = r#"
[secrets.a-cert]
reference = "op://v/i/cert"
consumers = [{ unit = "cache.service" }, { unit = "idle.service" }]
on_change = "reload"
[secrets.b-key]
reference = "op://v/i/key"
consumers = [{ unit = "cache.service" }, { unit = "shipper.service" }]
on_change = "restart"
[secrets.c-late]
reference = "op://v/i/late"
consumers = [{ unit = "shipper.service" }]
on_change = "reload"
[secrets.d-quiet]
reference = "op://v/i/quiet"
consumers = [{ unit = "quiet.service" }]
"#;
    for field in ["cert", "key", "quiet"] {
        machine
            .shop
            .set(&format!("op://v/i/{field}"), &format!("{field}-value"));
    }
    let fetcher = machine.boot(secrets).await;
    get(&fetcher, "cache", "a-cert").await;
    get(&fetcher, "cache", "b-key").await;
    get(&fetcher, "shipper", "b-key").await;
    get(&fetcher, "quiet", "d-quiet").await;
    assert_eq!(get(&fetcher, "shipper", "c-late").await, "absent");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        machine.units.actions().is_empty(),
        "the first values are no change"
    );

    machine.shop.set("op://v/i/cert", "cert-value-2");
    machine.shop.set("op://v/i/key", "key-value-2");
    machine.shop.set("op://v/i/quiet", "quiet-value-2");
    fetcher.reload();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let restart = |unit: &str| (format!("{unit}.service"), OnChange::Restart);
    let reload = |unit: &str| (format!("{unit}.service"), OnChange::Reload);
    assert_eq!(
        machine.units.actions(),
        [restart("cache"), restart("shipper")]
    );

    // What was absent is there now. The unit was just restarted, so it has to wait.
    machine.shop.set("op://v/i/late", "late-value");
    fetcher.reload();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(machine.units.actions()[2..], [reload("shipper")]);
    let times = machine.units.times();
    assert!(times[2] - times[1] >= Duration::from_secs(30), "{times:?}");

    // A daemon that has read the new value by itself is left alone.
    fetcher
        .current(&consumer("shipper", "c-late"))
        .await
        .unwrap();
    machine.shop.set("op://v/i/late", "late-value-2");
    fetcher.reload();
    while fetcher.status().secrets[2].age != Some(0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fetcher
        .current(&consumer("shipper", "c-late"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(machine.units.actions().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn values_that_could_not_be_kept_out_of_logs_are_refused() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "short");
    machine.shop.set("op://v/i/tls", "");
    let fetcher = machine.boot(&ONE.replace("required = true", "")).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "absent");
    assert_eq!(get(&fetcher, "cache", "tls").await, "absent");
    let messages: Vec<_> = fetcher
        .status()
        .secrets
        .into_iter()
        .filter_map(|secret| secret.message)
        .collect();
    insta::assert_snapshot!(messages.join("\n"));
    drop(fetcher);
    let fetcher = machine
        .boot(&ONE.replace("required = true", "public = true"))
        .await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "short");
}

#[tokio::test(start_paused = true)]
async fn a_value_waits_for_the_shipper_but_not_for_long() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "jwt-value");
    let fetcher = machine.boot(ONE).await;
    // Nobody watches, nothing is shipped: no wait.
    let began = Instant::now();
    get(&fetcher, "cache", "jwt").await;
    assert!(began.elapsed() < Duration::from_millis(100));

    let mut watcher = fetcher.blotting().watch("shipper.service");
    watcher.next().await;
    let rotate = async |value: &str| {
        machine.shop.set("op://v/i/jwt", value);
        let mut changes = fetcher.changes();
        fetcher.reload();
        changes.changed().await.unwrap();
    };
    rotate("second-value").await;
    let began = Instant::now();
    assert_eq!(get(&fetcher, "cache", "jwt").await, "second-value");
    assert_eq!(began.elapsed().as_secs(), 2, "the shipper is silent");

    rotate("third-value").await;
    let (number, _) = fetcher.blotting().all();
    let began = Instant::now();
    let asking = tokio::spawn({
        let fetcher = fetcher.clone();
        async move { get(&fetcher, "cache", "jwt").await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asking.is_finished());
    watcher.acknowledge(number);
    assert_eq!(asking.await.unwrap(), "third-value");
    assert!(
        began.elapsed() < Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );

    // One that goes away holds up nobody.
    rotate("fourth-value").await;
    drop(watcher);
    let began = Instant::now();
    assert_eq!(get(&fetcher, "cache", "jwt").await, "fourth-value");
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_seal_that_does_not_fit_and_damage_mean_beginning_anew() {
    let machine = Machine::new();
    machine.shop.set("op://v/i/jwt", "jwt-value");
    get(&machine.boot(ONE).await, "cache", "jwt").await;
    machine.shop.fail(Class::Unavailable);
    // Another machine, or a TPM that was cleared.
    let fetcher = machine
        .boot_with(ONE, Wax { broken: true }, BTreeMap::new())
        .await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "fail");
    machine.shop.work();
    fetcher.reload();
    assert_eq!(get(&fetcher, "cache", "jwt").await, "jwt-value");
    drop(fetcher);
    // Every byte counts.
    let path = machine.folder.path().join("values");
    let good = std::fs::read(&path).unwrap();
    machine.shop.fail(Class::Unavailable);
    for damage in [0, 12, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[damage] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let fetcher = machine.boot(ONE).await;
        assert_eq!(get(&fetcher, "cache", "jwt").await, "fail");
    }
    std::fs::write(&path, &good[..5]).unwrap();
    assert_eq!(get(&machine.boot(ONE).await, "cache", "jwt").await, "fail");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(
        get(&machine.boot(ONE).await, "cache", "jwt").await,
        "jwt-value"
    );
}
