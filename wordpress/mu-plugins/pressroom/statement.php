<?php
/**
 * What an SQL statement is about to do, as far as the page cache cares. Pure.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Statement {

	/** Whether it may change anything. In doubt: yes. */
	public static function is_write( string $sql ): bool {
		$head = strtoupper( substr( ltrim( $sql, " \t\r\n(" ), 0, 6 ) );
		if ( 'SELECT' === $head || 'DESCRI' === $head || 'EXPLAI' === $head || 0 === strncmp( $head, 'SHOW ', 5 ) || 0 === strncmp( $head, 'SET ', 4 ) ) {
			return false;
		}
		return ! preg_match( '~^(?:\s|/\*.*?\*/|\()*(?:SELECT|SHOW|SET|USE|START|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|LOCK|UNLOCK|DO|KILL|CHECK|ANALYZE)\b~is', $sql );
	}

	/** `begin`, `end` or null: what it does to a transaction. */
	public static function transaction( string $sql ): ?string {
		$head = strtoupper( substr( ltrim( $sql, " \t\r\n" ), 0, 5 ) );
		if ( 'START' === $head || 'BEGIN' === $head ) {
			return 'begin';
		}
		if ( 'COMMI' === $head || ( 'ROLLB' === $head && false === stripos( $sql, ' TO ' ) ) ) {
			return 'end';
		}
		if ( 'SET A' === $head && preg_match( '/^\s*SET\s+autocommit\s*=\s*(\w+)/i', $sql, $match ) ) {
			return in_array( strtolower( $match[1] ), array( '0', 'off', 'false' ), true ) ? 'begin' : 'end';
		}
		return null;
	}

	/**
	 * The table that a write names first, without quotes; null where none can be read.
	 */
	public static function table( string $sql ): ?string {
		$pattern = '~^(?:\s|/\*.*?\*/)*(?:INSERT|REPLACE|UPDATE|DELETE|TRUNCATE|ALTER|DROP|LOAD)\b(?:\s+(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|QUICK|IGNORE|INTO|FROM|TABLE|IF|EXISTS))*\s+(?:`?\w+`?\.)?`?(\w+)`?~is';
		if ( ! preg_match( $pattern, $sql, $match ) ) {
			return null;
		}
		// DELETE a, b FROM table a …
		if ( preg_match( '~^\s*DELETE\s+.*?\sFROM\s+(?:`?\w+`?\.)?`?(\w+)`?~is', $sql, $from ) ) {
			return $from[1];
		}
		return $match[1];
	}

	/**
	 * The numbers that a WHERE compares a column with; null where it does not do just that.
	 *
	 * @return int[]|null
	 */
	public static function numbers( string $sql, string $column ): ?array {
		if ( ! preg_match( '~\bWHERE\b(.*)$~is', $sql, $where ) ) {
			return null;
		}
		$column = '`?(?:\w+`?\.)?`?' . preg_quote( $column, '~' ) . '`?';
		if ( preg_match( "~(?<![\w`])$column\s*=\s*'?(\d+)'?~i", $where[1], $match ) ) {
			return array( (int) $match[1] );
		}
		if ( preg_match( "~(?<![\w`])$column\s+IN\s*\(([\d\s,']+)\)~i", $where[1], $match ) ) {
			return array_map( 'intval', explode( ',', str_replace( "'", '', $match[1] ) ) );
		}
		return null;
	}

	/** The option that a write to the options table names. */
	public static function option( string $sql ): ?string {
		if ( preg_match( "~option_name`?\s*=\s*'((?:[^'\\\\]|\\\\.)*)'~i", $sql, $match ) ) {
			return stripslashes( $match[1] );
		}
		if ( preg_match( "~^\s*(?:INSERT|REPLACE)\b.*?\bVALUES\s*\(\s*'((?:[^'\\\\]|\\\\.)*)'~is", $sql, $match ) ) {
			return stripslashes( $match[1] );
		}
		return null;
	}
}
