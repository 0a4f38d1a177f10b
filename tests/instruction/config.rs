//! Instructions that set the image's config.

use harness::{Kiln, Tree};
use serde_json::json;

#[test]
fn every_setting() {
    let context = Tree::dockerfile(
        r#"FROM scratch
MAINTAINER Me
ENV A=1 B="two words"
ENV C=$A
LABEL x=1 "y z"=2
EXPOSE 80 53/udp
VOLUME /data ["/more"]
WORKDIR /w
WORKDIR sub
USER 7:8
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD check it
SHELL ["/sh", "-c"]
ONBUILD RUN later
ENTRYPOINT ["/e", "x"]
CMD run $A
"#,
    );
    let image = Kiln::new().image(&context);
    let expect = [
        (
            "/Env",
            json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "B=two words", "C=1"]),
        ),
        ("/Labels", json!({"x": "1", "y z": "2"})),
        ("/ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
        ("/WorkingDir", json!("/w/sub")),
        ("/User", json!("7:8")),
        ("/StopSignal", json!("SIGINT")),
        ("/Healthcheck", json!({"Test": ["CMD-SHELL", "check it"], "Interval": 5_000_000_000_u64, "Retries": 2})),
        ("/Shell", json!(["/sh", "-c"])),
        ("/OnBuild", json!(["RUN later"])),
        ("/Entrypoint", json!(["/e", "x"])),
        ("/Cmd", json!(["/sh", "-c", "run $A"])),
    ];
    for (pointer, value) in expect {
        assert_eq!(*image.setting(pointer), value, "{pointer}");
    }
    assert_eq!(image.config["author"], "Me");
}

#[test]
fn the_base_is_inherited() {
    let image = Kiln::new().image(&Tree::dockerfile("FROM busybox\nENV MORE=1\n"));
    assert_eq!(image.setting("/Cmd"), &json!(["sh"]));
    assert_eq!(image.setting("/Env/1"), "MORE=1");
    assert_eq!(image.config["history"][0]["created_by"], "base rootfs");
    assert_eq!(image.config["history"][1]["empty_layer"], true);
}

#[test]
fn onbuild_triggers_run_in_the_child() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS parent\nONBUILD COPY f /f\nONBUILD RUN cat /f /f > /g\nFROM parent\nRUN cat /g > /h\n",
    )
    .file("f", "x");
    assert_eq!(kiln.image(&context).text("/h"), "xx");
}

#[test]
fn labels_of_the_command_line_win() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM scratch\nLABEL a=1 b=2\n");
    let image = kiln.build(&context).args(["--label", "b=3", "--label", "c=4"]).image();
    assert_eq!(image.setting("/Labels"), &json!({"a": "1", "b": "3", "c": "4"}));
}
