<?php
/**
 * The mail of an environment: composed as it would be sent, and kept in a folder instead.
 *
 * This `wp_mail()` comes before core's and before that of any plugin, so a plugin that sends by a service of its own is not asked. PHP's
 * own `mail()` ends in the same folder, by `sendmail_path`.
 *
 * Always: a letter has its name (`….eml`) once it is whole. The oldest go when there are too many.
 *
 * @package Pressroom
 * @license GPL-2.0-or-later
 */

final class Pressroom_Mailbox {

	/** So many letters are kept. */
	const KEPT = 1000;

	/** What `wp_mail()` is given; like core's it answers whether that could be sent. */
	public static function take( array $letter ): bool {
		$letter = (array) apply_filters( 'wp_mail', $letter ) + $letter;
		try {
			$text = self::composed( $letter );
		} catch ( Exception $error ) {
			do_action( 'wp_mail_failed', new WP_Error( 'wp_mail_failed', $error->getMessage(), $letter ) );
			return false;
		}
		if ( ! self::keep( $text ) ) {
			do_action( 'wp_mail_failed', new WP_Error( 'wp_mail_failed', 'The mailbox of this environment cannot be written.', $letter ) );
			return false;
		}
		do_action( 'wp_mail_succeeded', $letter );
		return true;
	}

	/** The letter as it would have been sent. */
	private static function composed( array $letter ): string {
		require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php';
		require_once ABSPATH . WPINC . '/PHPMailer/Exception.php';
		$mailer         = new PHPMailer\PHPMailer\PHPMailer( true );
		$mailer->Mailer = 'sendmail'; // Only composed: with all recipients in its head.
		$type           = 'text/plain';
		$charset        = get_bloginfo( 'charset' );
		$from           = 'wordpress@' . preg_replace( '/^www\./', '', (string) wp_parse_url( network_home_url(), PHP_URL_HOST ) );
		$name           = 'WordPress';
		foreach ( self::headers( $letter['headers'] ?? '' ) as list( $header, $value ) ) {
			switch ( strtolower( $header ) ) {
				case 'from':
					list( $from, $name ) = self::address( $value );
					break;
				case 'content-type':
					$type    = trim( explode( ';', $value )[0] );
					$charset = preg_match( '/charset="?([^";]+)/i', $value, $match ) ? trim( $match[1] ) : $charset;
					break;
				case 'cc':
				case 'bcc':
				case 'reply-to':
					$add = array( 'cc' => 'addCC', 'bcc' => 'addBCC', 'reply-to' => 'addReplyTo' )[ strtolower( $header ) ];
					foreach ( explode( ',', $value ) as $one ) {
						self::try_address( $mailer, $add, $one );
					}
					break;
				case 'mime-version':
				case 'x-mailer':
					break;
				default:
					$mailer->addCustomHeader( $header, $value );
			}
		}
		$mailer->setFrom( (string) apply_filters( 'wp_mail_from', $from ), (string) apply_filters( 'wp_mail_from_name', $name ), false );
		foreach ( is_array( $letter['to'] ) ? $letter['to'] : explode( ',', (string) $letter['to'] ) as $to ) {
			self::try_address( $mailer, 'addAddress', (string) $to );
		}
		$mailer->Subject = (string) $letter['subject'];
		$mailer->Body    = (string) $letter['message'];
		$mailer->CharSet = (string) apply_filters( 'wp_mail_charset', $charset );
		$type            = (string) apply_filters( 'wp_mail_content_type', $type );
		if ( 0 === strncasecmp( $type, 'multipart/', 10 ) ) {
			$type = 'text/plain';
		}
		$mailer->ContentType = $type;
		$mailer->isHTML( 'text/html' === $type );
		$attachments = $letter['attachments'] ?? array();
		foreach ( is_array( $attachments ) ? $attachments : explode( "\n", str_replace( "\r", '', (string) $attachments ) ) as $called => $path ) {
			if ( '' !== trim( (string) $path ) ) {
				$mailer->addAttachment( trim( $path ), is_string( $called ) ? $called : '' );
			}
		}
		$own = $mailer;
		do_action_ref_array( 'phpmailer_init', array( &$mailer ) );
		$own->Mailer = 'sendmail';
		$own->preSend();
		return $own->getSentMIMEMessage();
	}

	/** @return array{0:string,1:string}[] */
	private static function headers( $headers ): array {
		$found = array();
		foreach ( is_array( $headers ) ? $headers : explode( "\n", str_replace( "\r", '', (string) $headers ) ) as $key => $line ) {
			$pair = is_string( $key ) ? array( $key, (string) $line ) : explode( ':', (string) $line, 2 );
			if ( 2 === count( $pair ) && '' !== trim( $pair[0] ) ) {
				$found[] = array( trim( $pair[0] ), trim( $pair[1] ) );
			}
		}
		return $found;
	}

	/** @return array{0:string,1:string} Address and name. */
	private static function address( string $text ): array {
		return preg_match( '/^(.*)<(.+)>\s*$/', $text, $match ) ? array( trim( $match[2] ), trim( $match[1], " \t\"" ) ) : array( trim( $text ), '' );
	}

	/** An address that is none is left out, as core does it. */
	private static function try_address( $mailer, string $add, string $text ): void {
		try {
			$mailer->$add( ...self::address( $text ) );
		} catch ( PHPMailer\PHPMailer\Exception $error ) {
			return;
		}
	}

	private static function keep( string $text ): bool {
		$path = PRESSROOM_MAILBOX . '/' . bin2hex( random_bytes( 8 ) );
		if ( strlen( $text ) !== @file_put_contents( $path, $text ) || ! @rename( $path, "$path.eml" ) ) {
			@unlink( $path );
			return false;
		}
		$letters = glob( PRESSROOM_MAILBOX . '/*.eml', GLOB_NOSORT ) ?: array();
		if ( count( $letters ) > self::KEPT ) {
			$times = array_map( 'filemtime', $letters );
			array_multisort( $times, $letters );
			array_map( 'unlink', array_slice( $letters, 0, count( $letters ) - self::KEPT ) );
		}
		return true;
	}
}

if ( ! function_exists( 'wp_mail' ) ) {
	function wp_mail( $to, $subject, $message, $headers = '', $attachments = array() ) {
		return Pressroom_Mailbox::take( compact( 'to', 'subject', 'message', 'headers', 'attachments' ) );
	}
}
