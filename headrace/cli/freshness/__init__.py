"""The backtest: what retraining every day or every hour would have been worth on one's own history.

Reading order: `periods` (when what happens), `history` (the events and their true label times), `measure` (AUC,
log-loss, calibration), `lineage` (the proof that nothing was learned before it was known), `arm` (one refresh interval:
trainer, server, scores), `replay` (the run), `predictions` (scores of another model), `report`
(what is printed).
"""
