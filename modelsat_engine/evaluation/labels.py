"""What scenarios, predictors and kinds of zoo are called in tables and pictures."""

from __future__ import annotations

TITLES = {
    "seen_models": "Seen models, new questions",
    "new_models": "New models, new questions",
    "new_datasets": "Datasets never trained on",
    "size_classes": "Zoos by size class",
    "release_stream": "Stream of releases: each new model joins the five best so far",
    "cost_pairs": "Strong and weak pairs, test questions",
    "routerbench": "RouterBench, a dataset never trained on",
}
LABELS = {
    "router": "router",
    "router_refined": "router, full history",
    "random": "random candidate",
    "aptitude_accuracy": "best single by aptitude test",
    "best_single": "best single in hindsight",
    "best_per_task": "best per task, full history",
    "knn_full_history": "kNN (64), full history",
    "knn_aptitude_answers": "kNN (64), aptitude answers",
    "matrix_factorisation": "matrix factorisation (16)",
    "oracle": "oracle",
}
DEFERRAL_LABELS = {**LABELS, "random": "random mix", "aptitude_accuracy": "aptitude test alone"}
KIND_LABELS = {
    "similar_sparse": "sparse",
    "middle_mixed": "middle",
    "large_mixed": "large",
    "high_performance": "strongest",
    "all_arrivals": "all",
    "seen_arrivals": "seen model arrives",
    "new_arrivals": "new model arrives",
}
