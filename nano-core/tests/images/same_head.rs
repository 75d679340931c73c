//! The identity of a head: which changes of a model leave what it has learnt right.

use nano_core::image::{HeadDescription, Image, Tensor};

use crate::builder::{Builder, head_net};

fn identity(net: &Builder) -> u32 {
    Image::new(net.image().bytes()).unwrap().head().unwrap().id
}

fn changed(change: impl FnOnce(&mut Builder)) -> u32 {
    let mut net = head_net();
    change(&mut net);
    identity(&net)
}

/// The settings of the head of `head_net`.
fn sgd(net: &mut Builder) -> &mut nano_core::image::SgdDescription {
    match &mut net.model.head {
        Some(HeadDescription::Sgd(head)) => head,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_and_places_do_not_change_a_head() {
    let own = identity(&head_net());
    assert_eq!(own, changed(|net| net.model.name = "another".into()));
    assert_eq!(own, changed(|net| net.model.inputs[0].name = "series".into()));
    assert_eq!(own, changed(|net| net.model.outputs[0].name = "features".into()));
    let in_ram = |net: &mut Builder| net.model.weights_in_ram = 1 << 16;
    assert_eq!(own, changed(in_ram));
    // And it is another image.
    let mut net = head_net();
    in_ram(&mut net);
    assert_ne!(Image::new(net.image().bytes()).unwrap().id(), Image::new(head_net().image().bytes()).unwrap().id());
}

#[test]
fn what_decides_features_classes_or_learning_makes_another_head() {
    let one_more = |tensor: &mut Tensor| match tensor {
        Tensor::Int8(elements) => elements[0] ^= 1,
        Tensor::Int16(elements) => elements[0] ^= 1,
        Tensor::Int32(elements) => elements[0] ^= 1,
        Tensor::Int64(elements) => elements[0] ^= 1,
        Tensor::Float32(elements) => elements[0] *= 2.0,
    };
    let mut all = vec![
        identity(&head_net()),
        // The scale of the features, and of what they are the mean of.
        changed(|net| [1, 2].into_iter().for_each(|id| net.value(id).scale *= 1.5)),
        changed(|net| net.value(0).scale *= 1.5),
        changed(|net| net.value(0).zero_point += 1),
        changed(|net| net.model.labels = vec!["left".into()]),
        changed(|net| net.model.labels = vec!["left".into(), "right".into()]),
        changed(|net| net.model.labels = vec!["right".into(), "left".into()]),
        changed(|net| sgd(net).descent.learning_rate = Some(0.5)),
        changed(|net| net.model.head = Some(HeadDescription::Sgd(head_net().sgd(4)))),
    ];
    let tensors = head_net().model.layers[0].tensors.len();
    all.extend((0..tensors).map(|index| {
        changed(|net| net.model.layers[0].tensors.values_mut().nth(index).into_iter().for_each(one_more))
    }));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "two of these heads are taken for the same");
}
