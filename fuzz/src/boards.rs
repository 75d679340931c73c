//! The models that the targets start from: every operator, every trainer, and models at a limit.

use nano_core::image::{
    ChannelScale, Dtype, HeadDescription, LONGEST_NAME, LayersDescription, LdaDescription, SgdDescription,
    StartDescription, SumsDescription, ValueDescription,
};
use nano_core::train::Loss;

use crate::builder::{
    Aligned, Builder, SCALE, conv_net, descent, head_net, layers_head, residual_net, two_by_two, value, variants_net,
};

/// An image with each kind of head, of one input and one output, and one of several inputs and outputs.
pub(crate) fn heads() -> Vec<Aligned> {
    let sums = SumsDescription { classes: 2, capacity: 4, start: None, half_life: 0 };
    let heads = [
        None,
        Some(HeadDescription::Lda(LdaDescription { sums: sums.clone(), shrinkage: 0.2 })),
        Some(HeadDescription::Lda(LdaDescription { sums: started(), shrinkage: 0.2 })),
        Some(HeadDescription::Prototype(started())),
        Some(HeadDescription::Prototype(sums)),
        layers(Loss::CrossEntropy),
        layers(Loss::Binary),
        layers(Loss::Squared),
        descending(Loss::Binary, 3),
        descending(Loss::Squared, 1),
    ];
    let heads = heads.map(|head| {
        let mut net = head_net();
        net.model.head = head.or(net.model.head);
        if let Some(
            HeadDescription::Sgd(SgdDescription { descent, .. })
            | HeadDescription::Layers(LayersDescription { descent, .. }),
        ) = &net.model.head
            && descent.loss == Loss::Squared
        {
            // Its one output is a number, not a class.
            net.model.labels.clear();
        }
        net.image()
    });
    heads.into_iter().chain([conv_net().image(), labelled().image(), described().image()]).collect()
}

/// Every image that the target `image` starts from.
pub(crate) fn images() -> Vec<Aligned> {
    let nets = [two_by_two(), variants_net(), residual_net(), chain(300)];
    heads().into_iter().chain(nets.map(|net| net.image())).collect()
}

fn descending(loss: Loss, outputs: usize) -> Option<HeadDescription> {
    let mut head = head_net().sgd(outputs);
    head.descent = descent(0.02, loss);
    Some(HeadDescription::Sgd(head))
}

/// Heads that start from what the factory knows of the six features of `head_net`.
fn started() -> SumsDescription {
    let start = StartDescription {
        means: (0..12).map(|place| 10.0 * place as f32 - 50.0).collect(),
        covariance: (0..36).map(|place| if place % 7 == 0 { 900.0 } else { 300.0 }).collect(),
        weights: (0..12).map(|place| place as f32 - 5.0).collect(),
        biases: vec![-3.0, 3.0],
        mean_strength: 0.5,
        spread_strength: 2.0,
    };
    SumsDescription { classes: 2, capacity: 4, start: Some(start), half_life: 0 }
}

fn layers(loss: Loss) -> Option<HeadDescription> {
    let outputs = if loss == Loss::Squared { 1 } else { 3 };
    Some(layers_head(6, outputs, descent(0.02, loss)))
}

/// A head whose classes have the longest names.
fn labelled() -> Builder {
    let mut net = head_net();
    net.model.labels = (0..3).map(|class| format!("{class:0>LONGEST_NAME$}")).collect();
    net
}

/// Two inputs, with channel scales, and outputs of two dtypes.
fn described() -> Builder {
    let mut net = Builder::new(0);
    let (wide, input) = (net.input([1, 2, 3]), net.input([1, 1, 40]));
    *net.value(wide) = ValueDescription { dtype: Dtype::Int16, zero_point: 0, ..value([1, 2, 3]) };
    net.model.inputs[input].channels = vec![ChannelScale { scale: 0.5, offset: -1.0 }; 40];
    let hidden = net.fully_connected(input, 70);
    [hidden, wide].into_iter().for_each(|id| net.output(id));
    net
}

/// Many small layers, one after the other.
fn chain(layers: usize) -> Builder {
    let mut net = Builder::new(0);
    let mut id = net.input([1, 1, 4]);
    for _ in 0..layers {
        id = net.requantize(id, SCALE, 0);
    }
    net.output(id);
    net
}
