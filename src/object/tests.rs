use super::*;

fn made(options: &[&str]) -> Objects {
    let objects = Objects::default();
    for option in options {
        assert_eq!(objects.add(option), Ok(Added::Made), "{option}");
    }
    objects
}

fn refused(options: &[&str]) -> String {
    let (last, first) = options.split_last().unwrap();
    made(first).add(last).unwrap_err().to_string()
}

/// 32 times "A" and 16 times "B", and "hello" encrypted with them by `openssl enc -aes-256-cbc`.
const KEY: &str = "secret,id=m,data=QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=,format=base64";
const IV: &str = "QkJCQkJCQkJCQkJCQkJCQg==";
const HELLO: &str = "4BZZeqOssq069GrrNiX64A==";

#[test]
fn secrets_are_given_as_they_are_or_in_base64() {
    let objects = made(&["secret,id=a,data=x,,y", "secret,id=b,data=YWJj,format=base64"]);
    assert_eq!(objects.secret("a").unwrap().as_slice(), b"x,y");
    assert_eq!(objects.secret_text("b").unwrap(), "abc");
    assert_eq!(objects.secret("c").unwrap_err().to_string(), "No secret with id 'c'");
}

#[test]
fn a_secret_in_a_file_keeps_its_newline() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "abc\n").unwrap();
    let objects = made(&[&format!("secret,id=a,file={}", file.path().display())]);
    assert_eq!(objects.secret("a").unwrap().as_slice(), b"abc\n");
    assert_eq!(
        refused(&["secret,id=a,file=/nope"]),
        "Unable to read /nope: Failed to open file “/nope”: No such file or directory"
    );
}

#[test]
fn a_secret_can_be_encrypted_with_another() {
    let objects = made(&[KEY, &format!("secret,id=a,data={HELLO},format=base64,keyid=m,iv={IV}")]);
    assert_eq!(objects.secret("a").unwrap().as_slice(), b"hello");
}

#[test]
fn what_is_wrong_with_an_encrypted_secret_is_said_in_qemus_words() {
    let with = |rest: &str| refused(&[KEY, &format!("secret,id=a,{rest},keyid=m")]);
    let hello = format!("data={HELLO},format=base64");
    assert_eq!(with(&hello), "IV is required to decrypt secret");
    assert_eq!(with(&format!("{hello},iv=YWJj")), "IV should be 16 bytes in length not 3");
    assert_eq!(with(&format!("data={HELLO},iv={IV}")), "Length 24 must be a multiple of block size 16");
    assert_eq!(
        with(&format!("data={IV},format=base64,iv={IV}")),
        "Incorrect number of padding bytes (101) found on decrypted data"
    );
    assert_eq!(
        refused(&["secret,id=m,data=abc", "secret,id=a,data=x,keyid=m,iv=x"]),
        "Key should be 32 bytes in length"
    );
    assert_eq!(refused(&["secret,id=a,data=x,keyid=b"]), "No secret with id 'b'");
}

#[test]
fn members_are_checked() {
    assert_eq!(refused(&["secret,id=a"]), "Either 'file' or 'data' must be provided");
    assert_eq!(refused(&["secret,id=a,data=x,file=y"]), "'file' and 'data' are mutually exclusive");
    assert_eq!(refused(&["secret,id=a,data=!!,format=base64"]), "Base64 data contains invalid characters");
    assert_eq!(refused(&["secret,id=a,data=x,bogus=1"]), "Parameter 'bogus' is unexpected");
    assert_eq!(refused(&["secret,data=x"]), "Parameter 'id' is missing");
    assert_eq!(refused(&["foo,id=s"]), "Parameter 'qom-type' does not accept value 'foo'");
    assert_eq!(refused(&["iothread,id=s"]), "invalid object type: iothread");
    assert_eq!(
        refused(&["secret,id=a,data=x", "secret,id=a,data=y"]),
        "attempt to add duplicate property 'a' to object (type 'container')"
    );
    assert_eq!(
        refused(&[r#"{"qom-type":"secret","id":"a","data":5}"#]),
        "Invalid parameter type for 'data', expected: string"
    );
}

#[test]
fn help_lists_types_and_members() {
    let objects = Objects::default();
    let Ok(Added::Help(text)) = objects.add("secret,help") else { panic!("no help") };
    assert!(text.starts_with("secret options:\n  data=<string>\n  file=<string>\n"));
    assert!(matches!(objects.add("help"), Ok(Added::Help(text)) if text.contains("\n  secret\n  throttle-group\n")));
}

#[test]
fn throttle_groups_take_limits_that_fit_together() {
    let objects = made(&["throttle-group,id=t,limits.iops-total=5,x-bps-read=9"]);
    let object = objects.get("t").unwrap();
    let Object::ThrottleGroup(group) = object.as_ref() else { panic!("{object:?}") };
    let limits = group.limits();
    assert_eq!((limits.buckets[3].average, limits.buckets[1].average), (5, 9));
    assert!(limits.any());
    let with = |rest: &str| refused(&[&format!("throttle-group,id=t,{rest}")]);
    assert_eq!(with("limits.iops-total=-1"), "bps/iops/max values must be within [0, 1000000000000000]");
    assert_eq!(
        with("limits.iops-total=5,limits.iops-read=3"),
        "bps/iops/max total values and read/write values cannot be used at the same time"
    );
    assert_eq!(with("limits.iops-total=5,limits.iops-total-max=4"), "bps_max/iops_max cannot be lower than bps/iops");
    assert_eq!(with("limits.iops-total-max-length=0"), "the burst length cannot be 0");
    assert_eq!(
        with("limits.bps-read-max-length=5000000000"),
        "bps-read-max-length value must be in the range [0, 4294967295]"
    );
    assert_eq!(with("limits.foo=5"), "Parameter 'limits.foo' is unexpected");
}

#[test]
fn credentials_must_be_readable() {
    assert_eq!(
        refused(&["tls-creds-x509,id=t,dir=/nope"]),
        "Unable to access credentials /nope/ca-cert.pem: No such file or directory"
    );
    assert_eq!(refused(&["tls-creds-x509,id=t,endpoint=server"]), "Missing 'dir' property value");
}
