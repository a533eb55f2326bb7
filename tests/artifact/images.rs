use rollbackd::artifact::{Doubt, Found, Kind, Podman, find};
use rollbackd::model::Number;

use super::store::Store;

async fn refused(podman: &Podman, text: &str) -> String {
    find(Kind::Image, text, Some(podman)).await.unwrap_err()
}

async fn found(podman: &Podman, text: &str) -> Found {
    find(Kind::Auto, text, Some(podman)).await.unwrap()
}

#[tokio::test]
async fn only_a_digest_names_an_image() {
    let store = Store::open().await;
    let podman = store.podman();
    let digest = store.import("localhost/weather:latest", "one");
    store.run(&["tag", "localhost/weather:latest", "localhost/other:1", "example.org/weather:7"]);
    let whole = format!("localhost/weather@{digest}");
    assert_eq!(
        refused(&podman, "localhost/weather:latest").await,
        format!("localhost/weather:latest is a tag, which can move; deploy {whole} instead")
    );
    assert_eq!(
        refused(&podman, "localhost/weather").await,
        format!(
            "localhost/weather is a name without a digest, which can move; deploy {whole} instead"
        )
    );
    let said = refused(&podman, "other:1").await;
    assert!(said.ends_with(&format!("deploy localhost/other@{digest} instead")), "{said}");
    let said = refused(&podman, "localhost/weather:2").await;
    assert!(said.starts_with("localhost/weather:2 is not in podman's store;"), "{said}");
    let said = find(Kind::Auto, "localhost/weather:latest", Some(&podman)).await.unwrap_err();
    assert!(said.contains("artifact = \"word\""), "{said}");

    for text in [whole.clone(), format!("localhost/weather:latest@{digest}")] {
        let found = found(&podman, &text).await;
        assert_eq!(found.artifact, whole);
        assert_eq!(found.digest().unwrap().to_string(), digest);
        found.seal.unwrap().check().await.unwrap();
    }
    let id = store.run(&["image", "inspect", "--format", "{{.Id}}", "localhost/weather"]);
    let said = refused(&podman, &format!("localhost/weather@sha256:{id}")).await;
    assert_eq!(said, format!("sha256:{id} is the id of an image; deploy {whole} instead"));
    let unknown = format!("localhost/weather@sha256:{}", "0".repeat(64));
    let said = refused(&podman, &unknown).await;
    assert_eq!(
        said,
        format!(
            "{unknown} is not in podman's store; `podman pull {unknown}` before it is deployed"
        )
    );
}

#[tokio::test]
async fn an_image_that_was_removed_is_gone_and_a_podman_that_was_stopped_is_not_an_image() {
    let mut store = Store::open().await;
    let podman = store.podman();
    let digest = store.import("localhost/weather:1", "one");
    let seal = found(&podman, &format!("localhost/weather@{digest}")).await.seal.unwrap();
    store.run(&["rmi", "localhost/weather:1"]);
    let doubt = seal.check().await.unwrap_err();
    assert_eq!(
        doubt.to_string(),
        format!("localhost/weather@{digest} is gone: it was {digest} when it was deployed")
    );
    let said = podman.pin("weather", Number(1), seal.artifact()).await.unwrap_err();
    assert!(said.ends_with("is not in podman's store any more"), "{said}");
    store.close();
    let doubt = seal.check().await.unwrap_err();
    assert!(matches!(doubt, Doubt::Unreadable { .. }));
    assert!(doubt.to_string().contains("podman does not listen at /"), "{doubt}");
}

#[tokio::test]
async fn a_pin_outlives_a_prune_and_a_tag_that_moves() {
    let store = Store::open().await;
    let podman = store.podman();
    let mut seals = Vec::new();
    for (number, content) in [(1, "one"), (2, "two"), (3, "three")] {
        let digest = store.import("localhost/weather:1", content);
        let found = found(&podman, &format!("localhost/weather@{digest}")).await;
        if number != 2 {
            podman.pin("weather", Number(number), &found.artifact).await.unwrap();
            podman.pin("weather", Number(number), &found.artifact).await.unwrap();
        }
        seals.push(found.seal.unwrap());
    }
    store.run(&["image", "prune", "--force"]);
    seals[0].check().await.unwrap();
    assert!(matches!(seals[1].check().await.unwrap_err(), Doubt::Gone { .. }), "it had no pin");
    seals[2].check().await.unwrap();
    // What the warm release would be started again from.
    store.run(&[
        "create",
        "--pull=never",
        "--network=none",
        "--name=warm",
        seals[0].artifact(),
        "/file",
    ]);
    // With --all a container keeps an image, and a tag does not.
    store.run(&["image", "prune", "--all", "--force"]);
    seals[0].check().await.unwrap();
    assert!(
        matches!(seals[2].check().await.unwrap_err(), Doubt::Gone { .. }),
        "no container of it"
    );
}

#[tokio::test]
async fn pins_are_let_go_by_service_and_number_and_images_stay() {
    let store = Store::open().await;
    let podman = store.podman();
    assert_eq!(podman.let_go("weather", &[]).await.unwrap(), []);
    let one = format!("localhost/weather@{}", store.import("localhost/weather:1", "one"));
    let two = format!("localhost/weather@{}", store.import("localhost/weather:2", "two"));
    for (service, number, image) in [
        ("weather", 1, &one),
        ("weather", 2, &two),
        ("weather", 3, &one),
        ("weather", 10, &two),
        ("weather-2", 1, &one),
        ("-", 1, &one),
    ] {
        podman.pin(service, Number(number), image).await.unwrap();
    }
    // Without the second name, all of its names would be taken away.
    store.run(&["untag", "localhost/weather:1", "localhost/weather:1"]);
    store.run(&[
        "tag",
        "localhost/weather:2",
        "localhost/rollbackd:mine",
        "localhost/rollbackd/a:deploy-1-of-weather",
    ]);
    let gone = podman.let_go("weather", &[Number(3), Number(10)]).await.unwrap();
    assert_eq!(gone, [Number(1), Number(2)]);
    let left = store.run(&["images", "--noheading", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut left: Vec<_> = left.lines().collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            "localhost/rollbackd/a:deploy-1-of-weather",
            "localhost/rollbackd:deploy-1-of--",
            "localhost/rollbackd:deploy-1-of-weather-2",
            "localhost/rollbackd:deploy-10-of-weather",
            "localhost/rollbackd:deploy-3-of-weather",
            "localhost/rollbackd:mine",
            "localhost/weather:2",
        ]
    );
    assert_eq!(podman.let_go("weather", &[Number(3), Number(10)]).await.unwrap(), []);
    // The last tags of an image: it is nameless, and there until somebody prunes.
    assert_eq!(podman.let_go("weather", &[]).await.unwrap(), [Number(3), Number(10)]);
    podman.let_go("weather-2", &[]).await.unwrap();
    podman.let_go("-", &[]).await.unwrap();
    let seal = found(&podman, &one).await.seal.unwrap();
    store.run(&["image", "prune", "--force"]);
    assert!(matches!(seal.check().await.unwrap_err(), Doubt::Gone { .. }));
    found(&podman, &two).await;
}
