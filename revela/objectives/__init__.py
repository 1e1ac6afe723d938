"""The objectives (Revela, section 3; REPLUG, App. B.3; Contriever, App. C.1): a batch becomes a loss, and nothing else.

They share an interface, `revela.objectives.base.Objective`, so that one training loop serves all of them:

    objective = METHODS[method].load_objective()(settings, retriever, lm, lm_tokenizer)
    batch = objective.collate(row)          # a row of the training file -> tensors
    items = objective.count(batch)          # what the loss is averaged over: tokens of the LM, or anchors
    total, scalars = objective(batch)       # the loss summed over them, and means to log beside it

`revela.study.methods` names the objective of each method.
"""
