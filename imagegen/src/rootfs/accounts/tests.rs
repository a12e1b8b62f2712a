use super::*;

#[test]
fn a_quoted_word_is_one_word() {
    assert_eq!(
        words("u  sshd -:nogroup \"sshd user\" /run/sshd")[3],
        "sshd user"
    );
    assert_eq!(words("u a - \"\" /x"), ["u", "a", "-", "", "/x"]);
}

#[test]
fn users_get_fixed_ids_and_groups() {
    let mut a = Accounts::default();
    let nogroup = Group {
        gid: 65534,
        ..Group::default()
    };
    a.groups.insert("nogroup".into(), nogroup);
    for pass in ["g", "u", "m"] {
        for line in [
            "u! systemd-network - \"Network\"",
            "u sshd -:nogroup \"sshd user\" /run/sshd",
            "u cache 990:990 \"cache\"",
            "g cache 990",
            "g wheel - -",
            "m sshd wheel",
        ] {
            a.sysusers_line(pass, line).unwrap();
        }
    }
    assert_eq!(a.users["systemd-network"].uid, 997);
    assert_eq!(a.groups["systemd-network"].gid, 997);
    assert!(a.users["systemd-network"].expired && !a.users["sshd"].expired);
    assert_eq!((a.users["sshd"].uid, a.users["sshd"].gid), (996, 65534));
    assert_eq!(a.users["cache"].gid, 990);
    assert_eq!(
        (a.groups["wheel"].gid, a.groups["wheel"].members.join(",")),
        (980, "sshd".into())
    );
    a.check().unwrap();
    let err = a.sysusers_line("u", "u newcomer - \"x\"").unwrap_err();
    assert!(
        err.to_string().contains("newcomer has no fixed id"),
        "{err}"
    );
    a.person("twin", 996, &[]).unwrap();
    assert!(a.check().is_err());
}
