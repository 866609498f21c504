"""Fusion: where and how modalities meet, at the feature, decision and hybrid level.

Every fusion takes a dict of one tensor per modality and returns one vector per item;
a second dict says what is there. Taught in 05_fusion.
"""

from mmcourse.fusion.base import Cost, Fusion, cost
from mmcourse.fusion.decision import (
    Average,
    Product,
    Stacking,
    Vote,
    WeightedAverage,
    out_of_fold,
)
from mmcourse.fusion.feature import (
    MCB,
    MFB,
    MLB,
    MUTAN,
    Concat,
    FiLM,
    Gated,
    LowRankFusion,
    TensorFusion,
    WeightedSum,
    compact_bilinear,
)
from mmcourse.fusion.hybrid import (
    Bottleneck,
    CoAttention,
    CrossBlock,
    CrossModal,
    SeveralDepths,
)
from mmcourse.fusion.queries import (
    GatedCrossAttention,
    PerceiverResampler,
    QFormer,
    qformer_mask,
)

FEATURE_LEVEL = (
    *(Concat, WeightedSum, Gated, FiLM),
    *(MLB, MFB, MUTAN, MCB, TensorFusion, LowRankFusion),
)
DECISION_LEVEL = (Vote, Average, WeightedAverage, Product, Stacking)
HYBRID_LEVEL = (
    *(CoAttention, CrossModal, Bottleneck),
    *(GatedCrossAttention, QFormer, SeveralDepths),
)

__all__ = [
    "DECISION_LEVEL",
    "FEATURE_LEVEL",
    "HYBRID_LEVEL",
    "MCB",
    "MFB",
    "MLB",
    "MUTAN",
    "Average",
    "Bottleneck",
    "CoAttention",
    "Concat",
    "Cost",
    "CrossBlock",
    "CrossModal",
    "FiLM",
    "Fusion",
    "Gated",
    "GatedCrossAttention",
    "LowRankFusion",
    "PerceiverResampler",
    "Product",
    "QFormer",
    "SeveralDepths",
    "Stacking",
    "TensorFusion",
    "Vote",
    "WeightedAverage",
    "WeightedSum",
    "compact_bilinear",
    "cost",
    "out_of_fold",
    "qformer_mask",
]
