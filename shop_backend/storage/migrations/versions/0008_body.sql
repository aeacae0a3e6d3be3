-- A request says more than what can be told from its order; '' for orders of before.

ALTER TABLE orders ADD COLUMN body text NOT NULL DEFAULT '';
