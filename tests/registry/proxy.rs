//! Proxies between kiln and registries.

use harness::{HttpServer, Kiln, Tree};

#[test]
fn the_environment_names_the_proxy() {
    let proxy = HttpServer::start();
    let kiln = Kiln::with_config("[registry.\"registry.invalid\"]\nhttp = true\n");
    let context = Tree::dockerfile("FROM registry.invalid/app:1\nCOPY a /a\n").file("a", "A");
    let build = |no_proxy: &str| {
        let build = kiln.build(&context).env("HTTP_PROXY", &proxy.url("")).env("NO_PROXY", no_proxy);
        build.env("KILN_TEST_RETRY", "2,10,10,1000").fails()
    };
    build("").says(&["registry.invalid/app:1", "not found"]);
    let asked: Vec<String> = proxy.requests().into_iter().map(|request| request.path).collect();
    assert!(asked.contains(&"http://registry.invalid/v2/app/manifests/1".to_string()), "{asked:?}");
    build("registry.invalid").says(&["cannot connect to http://registry.invalid"]);
    assert!(proxy.requests().is_empty());
}
