use rollbackd::artifact::{ArtifactKind, Podman, ResolvedArtifact, VerifyError, resolve};
use rollbackd::model::ReleaseNumber;

use super::podman_store::PodmanStore;

async fn resolve_error(podman: &Podman, text: &str) -> String {
    resolve(ArtifactKind::Image, text, Some(podman)).await.unwrap_err()
}

async fn resolve_image(podman: &Podman, text: &str) -> ResolvedArtifact {
    resolve(ArtifactKind::Auto, text, Some(podman)).await.unwrap()
}

#[tokio::test]
async fn image_reference_requires_a_digest() {
    let store = PodmanStore::start().await;
    let podman = store.podman();
    let digest = store.import("localhost/weather:latest", "one");
    store.run(&["tag", "localhost/weather:latest", "localhost/other:1", "example.org/weather:7"]);
    let whole = format!("localhost/weather@{digest}");
    assert_eq!(
        resolve_error(&podman, "localhost/weather:latest").await,
        format!("localhost/weather:latest is a tag, which can move; deploy {whole} instead")
    );
    assert_eq!(
        resolve_error(&podman, "localhost/weather").await,
        format!(
            "localhost/weather is a name without a digest, which can move; deploy {whole} instead"
        )
    );
    let said = resolve_error(&podman, "other:1").await;
    assert!(said.ends_with(&format!("deploy localhost/other@{digest} instead")), "{said}");
    let said = resolve_error(&podman, "localhost/weather:2").await;
    assert!(said.starts_with("localhost/weather:2 is not in podman's store;"), "{said}");
    let said =
        resolve(ArtifactKind::Auto, "localhost/weather:latest", Some(&podman)).await.unwrap_err();
    assert!(said.contains("artifact = \"opaque\""), "{said}");

    for text in [whole.clone(), format!("localhost/weather:latest@{digest}")] {
        let found = resolve_image(&podman, &text).await;
        assert_eq!(found.artifact, whole);
        assert_eq!(found.digest().unwrap().to_string(), digest);
        found.verifier.unwrap().verify().await.unwrap();
    }
    let id = store.run(&["image", "inspect", "--format", "{{.Id}}", "localhost/weather"]);
    let said = resolve_error(&podman, &format!("localhost/weather@sha256:{id}")).await;
    assert_eq!(said, format!("sha256:{id} is the id of an image; deploy {whole} instead"));
    let unknown = format!("localhost/weather@sha256:{}", "0".repeat(64));
    let said = resolve_error(&podman, &unknown).await;
    assert_eq!(
        said,
        format!(
            "{unknown} is not in podman's store; `podman pull {unknown}` before it is deployed"
        )
    );
}

#[tokio::test]
async fn removed_image_is_gone_and_stopped_podman_is_unreadable() {
    let mut store = PodmanStore::start().await;
    let podman = store.podman();
    let digest = store.import("localhost/weather:1", "one");
    let seal =
        resolve_image(&podman, &format!("localhost/weather@{digest}")).await.verifier.unwrap();
    store.run(&["rmi", "localhost/weather:1"]);
    let doubt = seal.verify().await.unwrap_err();
    assert_eq!(
        doubt.to_string(),
        format!("localhost/weather@{digest} is missing; the deploy recorded {digest}")
    );
    let said = podman.pin("weather", ReleaseNumber(1), seal.artifact()).await.unwrap_err();
    assert!(said.ends_with("is no longer in podman's store"), "{said}");
    store.stop();
    let doubt = seal.verify().await.unwrap_err();
    assert!(matches!(doubt, VerifyError::Unreadable { .. }));
    assert!(doubt.to_string().contains("podman does not listen at /"), "{doubt}");
}

#[tokio::test]
async fn pin_survives_prune_and_retag() {
    let store = PodmanStore::start().await;
    let podman = store.podman();
    let mut seals = Vec::new();
    for (number, content) in [(1, "one"), (2, "two"), (3, "three")] {
        let digest = store.import("localhost/weather:1", content);
        let found = resolve_image(&podman, &format!("localhost/weather@{digest}")).await;
        if number != 2 {
            podman.pin("weather", ReleaseNumber(number), &found.artifact).await.unwrap();
            podman.pin("weather", ReleaseNumber(number), &found.artifact).await.unwrap();
        }
        seals.push(found.verifier.unwrap());
    }
    store.run(&["image", "prune", "--force"]);
    seals[0].verify().await.unwrap();
    assert!(
        matches!(seals[1].verify().await.unwrap_err(), VerifyError::Gone { .. }),
        "it had no pin"
    );
    seals[2].verify().await.unwrap();
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
    seals[0].verify().await.unwrap();
    assert!(
        matches!(seals[2].verify().await.unwrap_err(), VerifyError::Gone { .. }),
        "no container of it"
    );
}

#[tokio::test]
async fn pins_are_removed_by_service_and_number_and_images_remain() {
    let store = PodmanStore::start().await;
    let podman = store.podman();
    assert_eq!(podman.unpin_except("weather", &[]).await.unwrap(), []);
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
        podman.pin(service, ReleaseNumber(number), image).await.unwrap();
    }
    // Without the second name, all of its names would be taken away.
    store.run(&["untag", "localhost/weather:1", "localhost/weather:1"]);
    store.run(&[
        "tag",
        "localhost/weather:2",
        "localhost/rollbackd:mine",
        "localhost/rollbackd/a:deploy-1-of-weather",
    ]);
    let gone =
        podman.unpin_except("weather", &[ReleaseNumber(3), ReleaseNumber(10)]).await.unwrap();
    assert_eq!(gone, [ReleaseNumber(1), ReleaseNumber(2)]);
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
    assert_eq!(
        podman.unpin_except("weather", &[ReleaseNumber(3), ReleaseNumber(10)]).await.unwrap(),
        []
    );
    // The last tags of an image: it is nameless, and there until somebody prunes.
    assert_eq!(
        podman.unpin_except("weather", &[]).await.unwrap(),
        [ReleaseNumber(3), ReleaseNumber(10)]
    );
    podman.unpin_except("weather-2", &[]).await.unwrap();
    podman.unpin_except("-", &[]).await.unwrap();
    let seal = resolve_image(&podman, &one).await.verifier.unwrap();
    store.run(&["image", "prune", "--force"]);
    assert!(matches!(seal.verify().await.unwrap_err(), VerifyError::Gone { .. }));
    resolve_image(&podman, &two).await;
}

#[tokio::test]
async fn two_images_are_compared_by_layers_labels_and_names_of_the_environment() {
    let mut store = PodmanStore::start().await;
    let podman = store.podman();
    store.import("localhost/weather:1", "one");
    store.build(
        "localhost/weather:2",
        "FROM localhost/weather:1\nENV NAME=hunter2 REGION=eu\nCOPY file /second\n\
         LABEL org.opencontainers.image.revision=abc\n",
    );
    store.build(
        "localhost/weather:3",
        "FROM localhost/weather:1\nENV REGION=us\nCOPY file /third\nCOPY file /fourth\n",
    );
    let contents = async |tag: &str| {
        let name = format!("localhost/weather:{tag}");
        podman.image_contents(&name).await.unwrap().unwrap()
    };
    let (one, two, three) = (contents("1").await, contents("2").await, contents("3").await);
    let inspected = store.run(&["image", "inspect", "--format", "{{.RootFS.Layers}}", "weather:3"]);
    let digests: Vec<_> = three.layers.iter().map(|it| it.digest.to_string()).collect();
    assert_eq!(format!("[{}]", digests.join(" ")), inspected);
    assert!(three.layers.iter().all(|it| it.bytes.is_some_and(|it| it > 0)), "{three:?}");
    assert!(!format!("{two:?}").contains("hunter2"), "no value of the environment");

    let diff = one.diff(&two);
    assert_eq!((diff.layers_added.len(), diff.layers_removed.len(), diff.layers), (1, 0, 2));
    assert_eq!(diff.layers_added[0], two.layers[1]);
    assert!(diff.environment.contains(&("NAME".to_owned(), "added")), "{diff:?}");
    let revision = "org.opencontainers.image.revision".to_owned();
    assert!(diff.labels.contains(&(revision, None, Some("abc".to_owned()))), "{diff:?}");

    let diff = two.diff(&three);
    assert_eq!((diff.layers_added.len(), diff.layers_removed.len(), diff.layers), (2, 1, 3));
    let expected = [("NAME".to_owned(), "removed"), ("REGION".to_owned(), "changed")];
    assert_eq!(diff.environment, expected);
    assert_eq!(two.diff(&two).layers_added, []);
    assert_eq!(podman.image_contents("localhost/weather:9").await.unwrap(), None);
    store.stop();
    let error = podman.image_contents("localhost/weather:1").await.unwrap_err();
    assert!(error.contains("podman does not listen at /"), "{error}");
}
