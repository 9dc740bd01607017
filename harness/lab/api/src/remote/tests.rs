use super::*;

fn wanted(query: &str, protocol: &str) -> Vec<&'static str> {
    let uri = format!("/exec?{query}").parse().unwrap();
    let wanted = Wanted::of(&Query::of(&uri), protocol);
    let all = STREAMS.into_iter();
    all.filter(|name| wanted.has(name)).collect()
}

/// | asked for             | v4, v3                       | v2, v1               |
/// |-----------------------|------------------------------|----------------------|
/// | stdout, stderr        | stdout, stderr, error        | the same             |
/// | stdin, stdout, tty    | stdin, stdout, error, resize | without resize       |
/// | … and stderr          | stderr is dropped            | the same             |
#[test]
fn clients_open_what_they_ask_for_and_no_more() {
    let plain = "stdout=true&stderr=true";
    let terminal = "stdin=true&stdout=1&stderr=true&tty=true";
    for protocol in ["v4.channel.k8s.io", "v3.channel.k8s.io"] {
        assert_eq!(wanted(plain, protocol), ["stdout", "stderr", "error"]);
        let expected = ["stdin", "stdout", "error", "resize"];
        assert_eq!(wanted(terminal, protocol), expected);
    }
    for protocol in ["v2.channel.k8s.io", "channel.k8s.io"] {
        assert_eq!(wanted(plain, protocol), ["stdout", "stderr", "error"]);
        assert_eq!(wanted(terminal, protocol), ["stdin", "stdout", "error"]);
    }
}

#[test]
fn an_exit_code_is_told_as_client_go_reads_it() {
    let cause = |outcome: Value| outcome["details"]["causes"][0].clone();
    assert_eq!(outcome(Ok(0))["status"], "Success");
    let expected = json!({"reason": "ExitCode", "message": "7"});
    assert_eq!(cause(outcome(Ok(7))), expected);
    assert_eq!(outcome(Ok(7))["reason"], "NonZeroExitCode");
    let failed = outcome(Err(io::Error::other("no")));
    assert_eq!(
        (&failed["status"], &failed["message"]),
        (&json!("Failure"), &json!("no"))
    );
}
