//! Contents of the files that every step is given: `/etc/hosts` and `/etc/resolv.conf`
//! (reference/dockerfile.md 8.2). Pure.

use frontend::op::Network;

/// `/etc/hosts`.
pub(super) fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    extra.iter().for_each(|(name, address)| text.push_str(&format!("{address}\t{name}\n")));
    text
}

/// `/etc/resolv.conf`, from the host's and, if that names only systemd-resolved's stub, from `upstream`.
pub(super) fn resolv_conf(host: &str, upstream: Option<&str>, network: Network) -> String {
    match network {
        // The host's own network, by default too: its servers can be reached, loopback or not.
        Network::Default | Network::Host => host.to_string(),
        Network::None => {
            let servers: Vec<&str> = host.lines().filter_map(name_server).collect();
            let text = upstream.filter(|_| servers == ["127.0.0.53"]).unwrap_or(host);
            let kept = text.lines().filter(|line| !name_server(line).is_some_and(is_loopback));
            kept.map(|line| format!("{line}\n")).collect()
        }
    }
}

fn name_server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

fn is_loopback(server: &str) -> bool {
    server
        .split('%')
        .next()
        .and_then(|server| server.parse::<std::net::IpAddr>().ok())
        .is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents() {
        let extra = [("svc.test".to_string(), "192.0.2.7".to_string())];
        let expect = "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.7\tsvc.test\n";
        assert_eq!(hosts("box", &extra), expect);
        let host = "search x\nnameserver 127.0.0.53\n";
        assert_eq!(resolv_conf(host, Some("nameserver 192.0.2.1\n"), Network::Host), host);
        assert_eq!(resolv_conf(host, Some("nameserver 192.0.2.1\n"), Network::None), "nameserver 192.0.2.1\n");
        assert_eq!(resolv_conf(host, None, Network::None), "search x\n");
    }
}
