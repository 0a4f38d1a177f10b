//! `USER` of a step, looked up in the image's own `/etc/passwd` and `/etc/group` (reference/dockerfile.md 8.4). Pure.

/// As whom a command runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, with the primary one first.
    pub groups: Vec<u32>,
    /// Home directory; `/` for a user without an entry.
    pub home: String,
}

/// Finds `user` (`name`, `uid`, `name:group`, …; empty is root). `passwd` and `group` are the files' contents, empty
/// where there is no file. The error is the message.
pub(crate) fn look_up(user: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    // A name that looks like a number is searched as a name first, as the container runtimes do.
    let number: Option<u32> = name.parse().ok();
    let entry = entries(passwd, 6)
        .find(|fields| fields[0] == name)
        .or_else(|| entries(passwd, 6).find(|fields| number.is_some() && fields[2].parse().ok() == number));
    let entry_id = |field: usize| entry.as_ref().and_then(|fields| fields[field].parse::<u32>().ok());
    let uid = match entry_id(2).or(number) {
        Some(uid) if uid <= i32::MAX as u32 => uid,
        Some(_) => return Err("uids and gids must be in range 0-2147483647".to_string()),
        None => return Err(format!("unable to find user {name}: no matching entries in passwd file")),
    };
    let home = entry.as_ref().map(|fields| fields[5].to_string()).filter(|home| !home.is_empty());
    let home = home.unwrap_or_else(|| "/".to_string());
    if let Some(group_name) = group_name {
        let gid = find_group(group_name, group)?;
        return Ok(User { uid, gid, groups: vec![gid], home });
    }
    let gid = entry_id(3).unwrap_or(0);
    let mut groups = vec![gid];
    if let Some(fields) = &entry {
        for members in entries(group, 4).filter(|members| members[3].split(',').any(|member| member == fields[0])) {
            groups.extend(members[2].parse::<u32>().ok().filter(|id| *id != gid));
        }
    }
    Ok(User { uid, gid, groups, home })
}

fn find_group(name: &str, group: &str) -> Result<u32, String> {
    let number: Option<u32> = name.parse().ok();
    let named = entries(group, 3).find(|fields| fields[0] == name).and_then(|fields| fields[2].parse().ok());
    match named.or(number) {
        Some(gid) if gid <= i32::MAX as u32 => Ok(gid),
        Some(_) => Err("uids and gids must be in range 0-2147483647".to_string()),
        None => Err(format!("unable to find group {name}: no matching entries in group file")),
    }
}

/// Lines with at least so many fields, comments and what is malformed left out. Lines that lack fields at their end
/// are padded.
fn entries(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).filter_map(move |line| {
        let mut entry: Vec<&str> = line.split(':').collect();
        if entry.len() < 3 {
            return None;
        }
        entry.resize(entry.len().max(fields), "");
        Some(entry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbob:x:1001:1002::/home/bob:\n# no\nbad\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:root,bob\nbob:x:1002:\nsupp:x:50:bob\n";

    fn check(user: &str, expect: Result<(u32, u32, &[u32], &str), &str>) {
        let got = look_up(user, PASSWD, GROUP);
        let expect = expect
            .map(|(uid, gid, groups, home)| User { uid, gid, groups: groups.to_vec(), home: home.to_string() })
            .map_err(str::to_string);
        assert_eq!(got, expect, "{user}");
    }

    #[test]
    fn forms() {
        check("", Ok((0, 0, &[0, 4], "/root")));
        check("bob", Ok((1001, 1002, &[1002, 4, 50], "/home/bob")));
        check("1001", Ok((1001, 1002, &[1002, 4, 50], "/home/bob")));
        check("5000", Ok((5000, 0, &[0], "/")));
        check("5000:6000", Ok((5000, 6000, &[6000], "/")));
        check("bob:supp", Ok((1001, 50, &[50], "/home/bob")));
        check(":supp", Ok((0, 50, &[50], "/root")));
        check("nosuch", Err("unable to find user nosuch: no matching entries in passwd file"));
        check("bob:nosuch", Err("unable to find group nosuch: no matching entries in group file"));
        check("4294967295", Err("uids and gids must be in range 0-2147483647"));
    }
}
