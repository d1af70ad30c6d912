"""HyperTrainedLogisticRegression: one line for a logistic regression with tuned decays."""

from typing import Any

from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from .linear_classifier import HyperTrainedLinearClassifier


class HyperTrainedLogisticRegression(HyperTrainedLinearClassifier):
    """Logistic regression that tunes its own decays by hypergradients.

    Minimises, for two classes and with the multinomial log-loss for more,

        sum_i s_i log_loss(y_i, f(x_i)) + 1/2 sum_j alpha_j w_j^2

    and chooses the decays alpha_j by the held-out log-loss: one alpha = 1 / C for all, or the family of
    `HyperTrainingSearchCV` where that is clearly better.

    Parameters
    ----------
    granularity : {"global", "output", "feature", "weight"}, default="feature"
        Which weights share a decay: all; those of a class; those of a feature, for all classes; none.
    decay_groups : array-like of shape (n_features,) or dict, default=None
        Features with equal entries share a decay; a dict maps feature names to groups.
    cv : int, float, splitter, iterable or None, default=None
        As `HyperTrainingSearchCV`'s: None is 5 stratified folds, or as many as the smallest class fills.
    exponent : "auto", float or array-like of float, default="auto"
        The q of the decay family, between 0.5 and 2; 2 is equal decays, 1 the (group) Lasso.
    shrinkage : "auto", float, array-like of float or None, default="auto"
        Prior of free decays around the family; "auto" and None fit none.
    guard_cv : "auto", int, splitter, iterable or None, default=None
        Outer folds on which the whole procedure is rerun for `guard_score_`; "auto": the folds of `cv`, when free
        decays are fitted.
    alpha_bounds : "auto" or tuple of (float, float), default="auto"
        Smallest and largest alpha = 1 / C. "auto" is relative to the data; a warning says where the answer lies on a
        bound that was given.
    fit_intercept : bool, default=True
        Whether to fit intercepts; they carry no decay.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as LogisticRegressionCV's: "balanced" is by all rows, the same for every fold of `cv`;
        folds of the guard are by their training rows.
    scoring : str, callable or None, default=None
        Score that chooses among all alphas that were tried, and among the rows of `cv_results_`; None reports the
        accuracy, and the held-out loss decides.
    max_iter : int, default=200
        Most hypergradient steps of a stage.
    tol : float, default=1e-6
        Hypergradient at which a stage ends. Where alphas of an exponent are scanned, its own is the vertex of a
        parabola, whatever the tolerance.
    time_limit : float or None, default=None
        Seconds after which the best model so far is kept.
    n_jobs : int or None, default=None
        Guard folds run at once.
    random_state : int, RandomState instance or None, default=None
        Of the random split when `cv` is a float.
    verbose : int, default=0
        With 1, a line a stage; with 2, a line a step.

    Attributes
    ----------
    coef_ : ndarray
        Coefficients, shaped as LogisticRegression's.
    intercept_ : ndarray
        Intercepts.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    alpha_ : float or ndarray of shape (n_decays,)
        Decays; infinite where all weights of a decay are exactly zero. `C_` is 1 / `alpha_`.
    alphas_ : dict of str to float
        The same by name: of a feature, an output or a group, or "feature[output]".
    family_alpha_, baseline_alpha_ : float
        alpha of the chosen row's family, and the tuned global alpha.
    best_score_, baseline_score_, guard_score_ : float
        Score of the chosen row, of the tuned global alpha, and of the whole procedure on rows that it never saw.
    selection_metric_ : str
        What decided: the name of the score, or "loss".
    exponent_, shrinkage_, n_hyperparameters_, n_iter_, stop_reason_, history_, cv_results_, best_estimator_
        As `HyperTrainingSearchCV`'s.
    n_features_in_, feature_names_in_
        Of the training data.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import scale
    >>> from skhyper import HyperTrainedLogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = HyperTrainedLogisticRegression("global").fit(scale(X), y)
    >>> bool(0.1 < model.C_ < 10)
    True
    """

    def _model(self) -> Any:
        return LogisticRegression(fit_intercept=self.fit_intercept, class_weight=self.class_weight)

    @property
    def C_(self) -> Any:
        """1 / `alpha_`: a float or an array of shape (n_decays,)."""
        return 1 / self.alpha_

    def predict_proba(self, X: Any) -> Any:
        """Probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        check_is_fitted(self)
        return self.best_estimator_.predict_proba(X)

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithm of the probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        check_is_fitted(self)
        return self.best_estimator_.predict_log_proba(X)
