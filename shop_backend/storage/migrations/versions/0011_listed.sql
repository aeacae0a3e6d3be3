-- What is not listed is sold, by its address, while its sale is open, and not shown at all when that is over.

ALTER TABLE products ADD COLUMN listed boolean NOT NULL DEFAULT true;
-- The product that rehearsals sold so far stayed on the shelf.
UPDATE products SET listed = false, sale_ends_at = coalesce(sale_ends_at, now()) WHERE sku = 'rehearsal' AND kind = 'rehearsal';
